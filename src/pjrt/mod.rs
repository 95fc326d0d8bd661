//! (module pjrt)
