//! (module loss)
