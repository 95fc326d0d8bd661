//! (module train)
