use super::*;
use std::thread;

/// Tasks that were scheduled to be run later, and errors that were destroyed.
static LATER: Mutex<Vec<(unsafe extern "C" fn(*mut c_void), usize)>> = Mutex::new(Vec::new());
static DESTROYED: AtomicUsize = AtomicUsize::new(0);
const REFUSAL: usize = 8;

unsafe extern "C" fn on_a_thread(args: *mut ScheduleArgs) -> *mut c_void {
    let args = unsafe { &*args };
    let (task, data) = (args.task, args.data as usize);
    thread::spawn(move || unsafe { task(data as *mut c_void) });
    null_mut()
}

unsafe extern "C" fn at_once(args: *mut ScheduleArgs) -> *mut c_void {
    let args = unsafe { &*args };
    unsafe { (args.task)(args.data) };
    null_mut()
}

unsafe extern "C" fn later(args: *mut ScheduleArgs) -> *mut c_void {
    let args = unsafe { &*args };
    LATER.lock().unwrap().push((args.task, args.data as usize));
    null_mut()
}

unsafe extern "C" fn refuse(_args: *mut ScheduleArgs) -> *mut c_void {
    REFUSAL as *mut c_void
}

unsafe extern "C" fn destroy(args: *mut DestroyArgs) {
    assert_eq!(unsafe { &*args }.error as usize, REFUSAL);
    DESTROYED.fetch_add(1, Ordering::Relaxed);
}

fn table_of(schedule: Schedule) -> Table {
    Table {
        struct_size: size_of::<Table>(),
        extension: null_mut(),
        version: Version {
            struct_size: size_of::<Version>(),
            extension: null_mut(),
            major: 0,
            minor: 3,
        },
        internal: null_mut(),
        error_create: None,
        error_message: null_mut(),
        error_destroy: Some(destroy),
        between: [null_mut(); 8],
        schedule: Some(schedule),
    }
}

fn frame(table: &Table) -> Frame {
    let arrays = || Arrays {
        struct_size: 0,
        extension: null_mut(),
        count: 0,
        types: null_mut(),
        arrays: null_mut(),
    };
    Frame {
        struct_size: size_of::<Frame>(),
        extension: null_mut(),
        api: table,
        context: null_mut(),
        stage: 3,
        arguments: arrays(),
        results: arrays(),
        attributes: Attributes {
            struct_size: 0,
            extension: null_mut(),
            count: 0,
            types: null_mut(),
            names: null_mut(),
            values: null_mut(),
        },
    }
}

/// How often each part was done.
fn done(table: &Table, parts: usize) -> Vec<usize> {
    let frame = frame(table);
    let done: Vec<AtomicUsize> = (0..parts).map(|_| AtomicUsize::new(0)).collect();
    let sharing = Sharing { frame: &frame };
    sharing.share_among(4, parts, &|part| {
        done[part].fetch_add(1, Ordering::Relaxed);
    });
    done.into_iter().map(AtomicUsize::into_inner).collect()
}

#[test]
fn each_part_is_done_once_whenever_helpers_come() {
    for schedule in [on_a_thread, at_once, later, refuse] {
        for parts in [1, 2, 9] {
            for _ in 0..20 {
                assert_eq!(done(&table_of(schedule), parts), vec![1; parts]);
            }
        }
    }
    // Two of three sizes are shared: one task for two parts, three for nine; a refusal ends the asking.
    assert_eq!(DESTROYED.load(Ordering::Relaxed), 2 * 20);
    let late: Vec<_> = LATER.lock().unwrap().drain(..).collect();
    assert_eq!(late.len(), (1 + 3) * 20);
    // What they were to help with is long gone.
    for (task, data) in late {
        unsafe { task(data as *mut c_void) };
    }
    // Where the interface is too short for it.
    let mut short = table_of(on_a_thread);
    short.struct_size -= 8;
    assert_eq!(done(&short, 3), [1; 3]);
}

struct Nothing;

impl Function for Nothing {
    const NAME: &'static str = "nothing";
    fn run(_call: &mut Call) -> Result<(), String> {
        Ok(())
    }
}

#[test]
fn a_function_is_for_the_plugins_version_if_that_has_enough() {
    let asked = |table: *const Table| {
        let mut metadata = Metadata {
            struct_size: size_of::<Metadata>(),
            version: Version {
                struct_size: size_of::<Version>(),
                extension: null_mut(),
                major: 0,
                minor: 0,
            },
            traits: 1,
        };
        let extension = MetadataExtension {
            base: Base {
                struct_size: size_of::<MetadataExtension>(),
                kind: METADATA,
                next: null_mut(),
            },
            metadata: &raw mut metadata,
        };
        let mut frame = frame(&table_of(at_once));
        frame.api = table;
        frame.extension = (&raw const extension).cast();
        assert!(unsafe { handler::<Nothing>(&raw mut frame) }.is_null());
        (metadata.version.major, metadata.version.minor)
    };
    let mut table = table_of(at_once);
    assert_eq!(asked(&table), (0, 3));
    assert_eq!(asked(null_mut()), (0, 0));
    table.version.major = 1;
    assert_eq!(asked(&table), (0, 0));
    let mut table = table_of(at_once);
    table.struct_size -= 8;
    assert_eq!(asked(&table), (0, 0));
}

#[test]
fn a_part_that_panics_is_told_after_the_others() {
    let (table, done) = (table_of(on_a_thread), AtomicUsize::new(0));
    let frame = frame(&table);
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        Sharing { frame: &frame }.share_among(3, 6, &|part| {
            assert_ne!(part, 2, "for this test");
            done.fetch_add(1, Ordering::Relaxed);
        });
    }));
    assert!(outcome.is_err());
    assert_eq!(done.into_inner(), 5);
}
