//! (module hlo)
