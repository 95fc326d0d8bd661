//! Rewrites for a target, applied after differentiation.
