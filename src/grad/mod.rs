//! (module grad)
