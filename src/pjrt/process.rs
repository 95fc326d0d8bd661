//! What a process must settle before it has threads or clients.
#![expect(
    unsafe_code,
    reason = "an option of the allocator, the environment of a single-threaded start, and an end without handlers"
)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

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

/// Options by their numbers in mimalloc's list, which the crate does not name.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod option {
    use libmimalloc_sys::{_mi_option_last, mi_option_t};

    /// Milliseconds until freed memory is given back.
    pub const PURGE_DELAY: mi_option_t = 15;
    /// How many full pages of small blocks of a size a thread keeps, whose blocks others free in vain until it looks; of threads begun later.
    pub const PAGE_FULL_RETAIN: mi_option_t = 36;

    // Another length is another list.
    const _: () = assert!(_mi_option_last == 47);
}

/// Whether this program has switched transparent huge pages off for the process, and nobody before it.
static WITHOUT_HUGE_PAGES: AtomicBool = AtomicBool::new(false);

/// Before a program is launched for the `launched`th time, from 0: settles what becomes of freed memory.
///
/// The CPU plugin allocates its temporary arena and the scratch of its convolutions afresh for every launch. In the long run freed memory
/// is kept for a second, since what goes back to the system in between is faulted in and zeroed again (with glibc's allocator a tenth
/// of a step), and comes in huge pages where the system has them. Not from the start:
///
/// * What compiling and filling the arguments took is given back before the first launch of each program.
/// * Of huge pages the system zeroes all, of which compiling and the first launch touch little before they give it back: a quarter of the
///   time to the first step (docs/benchmarks.md). Before the first second launch of any program what is free is given back once more, and
///   comes again in huge pages; what the first launch had is free then where its results were waited for.
/// * Until a third launch nothing is kept for long, so that the second does not find the first one's memory still held.
pub fn settle_memory(launched: u64) {
    match launched {
        0 => give_memory_back(),
        1 => allow_huge_pages(),
        _ => keep_memory(),
    }
}

fn give_memory_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it frees nothing that is in use.
    unsafe {
        libmimalloc_sys::mi_collect(true);
    }
}

fn allow_huge_pages() {
    if WITHOUT_HUGE_PAGES.swap(false, Ordering::Relaxed) {
        #[cfg(target_os = "linux")]
        // SAFETY: the flag only chooses the size of pages that are touched for the first time from now on.
        unsafe {
            libc::prctl(libc::PR_SET_THP_DISABLE, NONE, NONE, NONE, NONE);
        }
        give_memory_back();
    }
}

/// What prctl wants in places that mean nothing.
#[cfg(target_os = "linux")]
const NONE: libc::c_ulong = 0;

/// Temporary memory of a program in bytes for which [`let_arena_go`] is worth its time.
pub const LARGE_ARENA: i64 = 64 << 20;

/// Before a further launch of a program with a large arena: the CPU plugin's thread says that a launch is done before it frees the arena,
/// and often is put off just then by the thread that it wakes. The next launch would take as much beside it, page by page.
pub fn let_arena_go() {
    std::thread::sleep(Duration::from_micros(30));
}

/// From now on freed memory is kept for a second or so, unless the user has said how long (`MIMALLOC_PURGE_DELAY`), and may come in huge pages.
///
/// A thread gives back once a second what is free at that moment. The allocator's own delay counts from the first block that is freed,
/// and ends with all that are free: most often where a step ends, so that its arena went just when the next one asked for it, and
/// was allocated anew beside the old one.
pub fn keep_memory() {
    allow_huge_pages();
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        static KEEPER: std::sync::Once = std::sync::Once::new();
        KEEPER.call_once(|| {
            if std::env::var_os("MIMALLOC_PURGE_DELAY").is_some() {
                return;
            }
            let keeper = std::thread::Builder::new().name("memory".into());
            let started = keeper.spawn(|| {
                // SAFETY: a thread may say that it begins; one that has not is given nothing to collect.
                unsafe { libmimalloc_sys::mi_thread_init() };
                loop {
                    std::thread::sleep(KEPT);
                    give_memory_back();
                }
            });
            let delay = if started.is_ok() { HOUR } else { KEPT };
            // SAFETY: sets a number; one thread writes it, once. Others that free memory meanwhile may still read the old one, an
            // aligned word.
            unsafe { libmimalloc_sys::mi_option_set(option::PURGE_DELAY, delay.as_millis() as _) };
        });
    }
}

/// How long freed memory is kept in the long run.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const KEPT: Duration = Duration::from_secs(1);
/// Longer than the allocator is to wait where something else gives memory back.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const HOUR: Duration = Duration::from_secs(3600);

/// Switches transparent huge pages off, unless the user or whoever started the process has settled that, or there is an accelerator, whose
/// runtime may want them.
fn begin_without_huge_pages() {
    #[cfg(target_os = "linux")]
    {
        let accelerator = tpu_chips() > 0 || std::path::Path::new("/proc/driver/nvidia").exists();
        if accelerator || std::env::var_os("MIMALLOC_ALLOW_THP").is_some() {
            return;
        }
        // SAFETY: a flag of the process, asked for and set; where the system refuses, pages stay as it has them.
        let off = unsafe {
            libc::prctl(libc::PR_GET_THP_DISABLE, NONE, NONE, NONE, NONE) == 0
                && libc::prctl(
                    libc::PR_SET_THP_DISABLE,
                    1 as libc::c_ulong,
                    NONE,
                    NONE,
                    NONE,
                ) == 0
        };
        WITHOUT_HUGE_PAGES.store(off, Ordering::Relaxed);
    }
}

/// Prepares the process for plugins. Call it first in `main`, before any thread and any plugin.
///
/// * The allocator is mimalloc, for plugins too, since its `malloc` stands before glibc's. It takes no transparent huge pages
///   (but beside an accelerator) and gives memory back a tenth of a second after it was freed, until [`settle_memory`] says otherwise.
/// * The plugins' chatter below warnings is silenced, unless the user set its level.
/// * Where there is no TPU, libtpu is told so.
pub fn prepare_process() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        use libmimalloc_sys::{
            mi_option_large_os_pages, mi_option_set_default, mi_option_set_enabled_default,
        };
        // SAFETY: it only sets options, unless the user did (MIMALLOC_ALLOW_LARGE_OS_PAGES and so on).
        unsafe {
            mi_option_set_enabled_default(mi_option_large_os_pages, true);
            mi_option_set_default(option::PURGE_DELAY, 100);
            mi_option_set_default(option::PAGE_FULL_RETAIN, 0);
        }
    }
    begin_without_huge_pages();
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

#[cfg(all(test, target_os = "linux", target_env = "gnu"))]
mod tests {
    use super::*;
    use std::time::Instant;

    /// Pages of a range that are in memory.
    fn resident(start: usize, length: usize, page: usize) -> usize {
        let mut pages = vec![0u8; length / page];
        // SAFETY: it writes a byte for each page of the range, whatever is there.
        let found = unsafe { libc::mincore(start as *mut _, length, pages.as_mut_ptr()) };
        match found {
            0 => pages.iter().filter(|&&page| page & 1 == 1).count(),
            _ => 0,
        }
    }

    #[test]
    fn what_is_free_is_given_back_though_memory_is_kept() {
        keep_memory();
        // SAFETY: it asks for a number.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
        let length = 64 << 20;
        let block = vec![1u8; length];
        let start = (block.as_ptr() as usize).next_multiple_of(page);
        let length = length - page;
        let all = length / page;
        assert_eq!(resident(start, length, page), all);
        drop(block);
        let begin = Instant::now();
        while resident(start, length, page) > all / 2 {
            assert!(begin.elapsed() < Duration::from_secs(60), "still there");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}
