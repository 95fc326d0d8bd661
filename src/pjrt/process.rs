//! What a process must settle before it has threads or clients.
#![expect(
    unsafe_code,
    reason = "an option of the allocator, the environment of a single-threaded start, and an end without handlers"
)]

/// What libtpu must be told where it only compiles, by name and value: not to ask the metadata server of a cloud for its place (it
/// would for minutes), and not to take the lock of the chips, which another process may use meanwhile.
pub const WITHOUT_TPU: [(&str, &str); 4] = [
    ("TPU_SKIP_MDS_QUERY", "1"),
    ("ALLOW_MULTIPLE_LIBTPU_LOAD", "1"),
    // It complains where these are missing; compiling does not depend on them.
    ("TPU_WORKER_HOSTNAMES", "localhost"),
    ("TPU_ACCELERATOR_TYPE", "v5litepod-4"),
];

/// TPU chips of this machine, counted on its bus without loading any plugin.
pub fn tpu_chips() -> usize {
    /// v2 and v3, v4, v5p, v5e, v6e, TPU7x.
    const CHIPS: [&str; 6] = ["0x0027", "0x005e", "0x0062", "0x0063", "0x006f", "0x0076"];
    let Ok(devices) = std::fs::read_dir("/sys/bus/pci/devices") else {
        return 0;
    };
    let is = |path: std::path::PathBuf, values: &[&str]| {
        std::fs::read_to_string(path).is_ok_and(|text| values.contains(&text.trim()))
    };
    devices
        .filter_map(Result::ok)
        .filter(|device| is(device.path().join("vendor"), &["0x1ae0"]))
        .filter(|device| is(device.path().join("device"), &CHIPS))
        .count()
}

/// Ends the process at once, without what plugins have registered to be called at its end: their threads may be in the middle of a
/// launch that never ends.
pub fn end_at_once(code: u8) -> ! {
    // SAFETY: it does nothing but end the process; whatever this program keeps is whole on the disk at any time.
    unsafe { libc::_exit(i32::from(code)) }
}

/// Sets variables that a plugin must find when it is loaded, beside those that are set. To be called before the process has threads.
pub fn set_variables(variables: &[(&'static str, String)]) {
    for (name, value) in variables {
        // SAFETY: the caller has started no thread yet, so nobody reads the environment meanwhile.
        unsafe { std::env::set_var(name, value) };
    }
}

/// Number 15 in mimalloc's list of options, which the crate does not name: milliseconds until freed memory is given back.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

/// Before the first launch of a program: gives back what is free now, which compiling and filling its arguments took; from now on freed
/// memory is kept for a second.
///
/// The CPU plugin allocates its temporary arena and the scratch of its convolutions afresh for every launch. Where that memory goes back
/// to the system in between, its pages are faulted in and zeroed again: with glibc's allocator a tenth of a step.
pub fn keep_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        static OPTION: std::sync::Once = std::sync::Once::new();
        OPTION.call_once(|| {
            if std::env::var_os("MIMALLOC_PURGE_DELAY").is_none() {
                // SAFETY: sets a number, unless the user did; one thread writes it, once. Others that free memory meanwhile may still
                // read the old one, an aligned word.
                unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, 1000) };
            }
        });
        // SAFETY: frees nothing that is in use.
        unsafe { libmimalloc_sys::mi_collect(true) };
    }
}

/// Prepares the process for plugins. Call it first in `main`, before any thread and any plugin.
///
/// * The allocator is mimalloc, for plugins too, since its `malloc` stands before glibc's; it takes huge pages where the system has
///   them, and gives memory back a tenth of a second after it was freed until the first launch.
/// * The plugins' chatter below warnings is silenced, unless the user set its level.
/// * Where there is no TPU, libtpu is told so.
pub fn prepare_process() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        use libmimalloc_sys::{
            mi_option_large_os_pages, mi_option_set_default, mi_option_set_enabled_default,
        };
        // SAFETY: it only sets options, unless the user did (MIMALLOC_ALLOW_LARGE_OS_PAGES, MIMALLOC_PURGE_DELAY).
        unsafe {
            mi_option_set_enabled_default(mi_option_large_os_pages, true);
            mi_option_set_default(PURGE_DELAY, 100);
        }
    }
    let mut settings = vec![
        ("TF_CPP_MIN_LOG_LEVEL", "1"),
        ("TPU_STDERR_LOG_LEVEL", "3"),
        ("TPU_MIN_LOG_LEVEL", "3"),
        // Otherwise every start leaves files in /tmp/tpu_logs.
        ("TPU_LOG_DIR", "disabled"),
    ];
    if tpu_chips() == 0 {
        settings.extend(WITHOUT_TPU);
    }
    for (name, value) in settings {
        if std::env::var_os(name).is_none() {
            // SAFETY: the caller has started no thread yet, so nobody reads the environment meanwhile.
            unsafe { std::env::set_var(name, value) };
        }
    }
}
