//! (module augment)
