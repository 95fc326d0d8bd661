//! What a process must settle before it has threads or clients.
#![expect(
    unsafe_code,
    reason = "mallopt and the environment of a single-threaded start"
)]

/// Prepares the process for plugins. Call it first in `main`, before any thread and any plugin.
///
/// * `malloc` keeps memory instead of returning it: the CPU plugin allocates its whole temporary arena afresh for every launch,
///   and with the defaults each launch pays half a millisecond per MiB in page faults.
/// * The plugins' chatter below warnings is silenced, unless the user set its level.
pub fn prepare_process() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: mallopt only sets parameters of the allocator.
        unsafe {
            libc::mallopt(libc::M_MMAP_MAX, 0);
            libc::mallopt(libc::M_TRIM_THRESHOLD, i32::MAX);
            libc::mallopt(libc::M_TOP_PAD, 256 << 20);
        }
    }
    for (name, value) in [("TF_CPP_MIN_LOG_LEVEL", "1"), ("TPU_STDERR_LOG_LEVEL", "3")] {
        if std::env::var_os(name).is_none() {
            // SAFETY: the caller has started no thread yet, so nobody reads the environment meanwhile.
            unsafe { std::env::set_var(name, value) };
        }
    }
}
