//! Functions of this program that compiled programs call: XLA's foreign function interface, for plugins that offer it.
//!
//! A function is registered under a name; a `custom-call` of that name gets the arrays of the program as they lie in memory. The
//! structures are those of XLA's `ffi/api/c_api.h`, major version 0, whose minor versions only add to their ends.
#![expect(unsafe_code, reason = "the C interface of the plugins")]

use super::client::Client;
use super::error::Error;
use std::ffi::{c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// `PJRT_Extension_Type_FFI`.
const FFI: c_int = 5;
/// `XLA_FFI_Extension_Metadata`.
const METADATA: c_int = 1;
/// `XLA_FFI_DataType_F32`.
const F32: c_int = 11;
/// `XLA_FFI_AttrType_ARRAY` and `_SCALAR`, and the type of their numbers.
const ARRAY: c_int = 1;
const SCALAR: c_int = 3;
const S64: c_int = 5;
/// `XLA_FFI_Error_Code_INVALID_ARGUMENT`.
const INVALID: c_int = 3;

/// A function that compiled programs can call.
pub trait Function {
    /// By which a `custom-call` names it.
    const NAME: &'static str;

    /// Computes the result from the arguments.
    ///
    /// # Errors
    /// In words, if the arrays are not what it takes; the launch then fails with them.
    fn run(call: &mut Call) -> Result<(), String>;
}

/// A dense row-major array of a program.
pub struct Array<'a> {
    /// Its dimensions.
    pub dims: &'a [i64],
    /// Its numbers.
    pub values: &'a [f32],
}

/// One call: what the program gives, and where it wants the result.
pub struct Call<'a> {
    frame: &'a Frame,
}

/// What is registered, by the plugin's function that did it.
static REGISTERED: Mutex<Vec<(usize, &'static str)>> = Mutex::new(Vec::new());

/// Registers a function for programs of the client's plugin on the CPU, once. Whether that worked: not every plugin can.
///
/// The plugin's own list has no lock: two clients that register at once end the process now and then. This one keeps registrations apart; that
/// nobody compiles before the first is done, [`crate::engine::Engine::new`] sees to, which registers for every client.
///
/// # Errors
/// If the plugin refuses the function.
pub fn register<F: Function>(client: &Client) -> Result<bool, Error> {
    let api = &client.inner.api;
    let mut node = api.extensions().cast::<Base>();
    // SAFETY: the list is static like the table it hangs from; its nodes begin with the base, that of the interface has what its size says.
    let register = unsafe {
        loop {
            let Some(base) = node.as_ref() else {
                return Ok(false);
            };
            if base.kind == FFI && base.struct_size >= size_of::<Extension>() {
                break (*node.cast::<Extension>()).register;
            }
            node = base.next;
        }
    };
    let Some(register) = register else {
        return Ok(false);
    };
    let own = (register as usize, F::NAME);
    let mut registered = REGISTERED.lock().unwrap_or_else(PoisonError::into_inner);
    if registered.contains(&own) {
        return Ok(true);
    }
    let mut args = RegisterArgs {
        struct_size: size_of::<RegisterArgs>(),
        name: F::NAME.as_ptr().cast(),
        name_size: F::NAME.len(),
        handler: handler::<F> as *mut c_void,
        platform: c"Host".as_ptr(),
        platform_size: 4,
        traits: 0,
    };
    // SAFETY: the struct is the extension's and outlives the call; the texts are static.
    let error = unsafe { register(&mut args) };
    api.outcome("PJRT_FFI_Register_Handler", error)?;
    registered.push(own);
    Ok(true)
}

/// Threads that share a call, the calling one among them.
static THREADS: AtomicUsize = AtomicUsize::new(1);

/// Says how many threads may share one call.
pub(super) fn set_threads(count: usize) {
    THREADS.store(count.max(1), Ordering::Relaxed);
}

impl<'a> Call<'a> {
    /// An argument.
    ///
    /// # Errors
    /// In words, if it is not there or no array of f32.
    pub fn argument(&self, index: usize) -> Result<Array<'a>, String> {
        let (dims, data, count) = self.frame.arguments.array(index)?;
        // SAFETY: the program owns so many numbers there, and nobody writes to arguments during a call.
        let values = unsafe { std::slice::from_raw_parts(data, count) };
        Ok(Array { dims, values })
    }

    /// Dimensions and numbers of the only result, which hold anything.
    ///
    /// # Errors
    /// As [`Call::argument`].
    pub fn result(&mut self) -> Result<(&'a [i64], &mut [f32]), String> {
        let (dims, data, count) = self.frame.results.array(0)?;
        // SAFETY: the program gives the result so much memory of its own; the borrow of the call keeps it the only one.
        Ok((dims, unsafe { std::slice::from_raw_parts_mut(data, count) }))
    }

    /// How many arguments there are.
    pub fn arguments(&self) -> usize {
        self.frame.arguments.count as usize
    }

    /// How many results there are.
    pub fn results(&self) -> usize {
        self.frame.results.count as usize
    }

    /// Where an argument lies, and how many numbers it has: for functions that write a result over an argument.
    ///
    /// # Errors
    /// As [`Call::argument`].
    pub fn argument_at(&self, index: usize) -> Result<(*const f32, usize), String> {
        let (_, data, count) = self.frame.arguments.array(index)?;
        Ok((data, count))
    }

    /// Where a result goes, and how many numbers it has.
    ///
    /// # Errors
    /// As [`Call::argument`].
    pub fn result_at(&mut self, index: usize) -> Result<(*mut f32, usize), String> {
        let (_, data, count) = self.frame.results.array(index)?;
        Ok((data, count))
    }

    /// A natural number among the attributes.
    ///
    /// # Errors
    /// In words, if there is none of that name.
    pub fn number(&self, name: &str) -> Result<usize, String> {
        let scalar = self.attribute(name, SCALAR).map(|found| {
            // SAFETY: a scalar's entry points at its type and number.
            unsafe { &*found.cast::<Scalar>() }
        });
        match scalar {
            Some(scalar) if scalar.dtype == S64 => {
                // SAFETY: of this type.
                let value = unsafe { *scalar.value.cast::<i64>() };
                usize::try_from(value)
                    .map_err(|_| format!("attribute `{name}` is {value}, expected at least 0"))
            }
            _ => Err(format!(
                "there is no attribute `{name}` with a 64-bit whole number"
            )),
        }
    }

    /// The whole numbers of an attribute.
    ///
    /// # Errors
    /// In words, if there is none of that name.
    pub fn numbers(&self, name: &str) -> Result<&'a [i64], String> {
        let list = self.attribute(name, ARRAY).map(|found| {
            // SAFETY: a list's entry points at its type, length and numbers.
            unsafe { &*found.cast::<List>() }
        });
        match list {
            Some(list) if list.size == 0 => Ok(&[]),
            // SAFETY: so many of this type, which live as long as the call.
            Some(list) if list.dtype == S64 => {
                Ok(unsafe { std::slice::from_raw_parts(list.values.cast::<i64>(), list.size) })
            }
            _ => Err(format!(
                "there is no attribute `{name}` with 64-bit whole numbers"
            )),
        }
    }

    /// What the entry of an attribute of that kind points at.
    fn attribute(&self, name: &str, kind: c_int) -> Option<*const c_void> {
        let all = &self.frame.attributes;
        (0..all.count as usize).find_map(|i| {
            // SAFETY: each list has `count` entries.
            unsafe {
                let found = &**all.names.add(i);
                let text = std::slice::from_raw_parts(found.text.cast::<u8>(), found.size);
                (text == name.as_bytes() && *all.types.add(i) == kind).then(|| *all.values.add(i))
            }
        })
    }

    /// How the call's work can be shared, beside its arrays.
    pub fn sharing(&self) -> Sharing<'a> {
        Sharing { frame: self.frame }
    }
}

/// The threads that may take parts of a call's work.
#[derive(Clone, Copy)]
pub struct Sharing<'a> {
    frame: &'a Frame,
}

impl Sharing<'_> {
    /// Parts worth making: as many as threads.
    pub fn parts(&self) -> usize {
        THREADS.load(Ordering::Relaxed)
    }

    /// Does all parts of some work, each once, on this thread and what others of the plugin are free. Never waits for a thread that has
    /// not begun, so that it ends even where no other is free.
    ///
    /// # Panics
    /// If a part does.
    pub fn share(&self, parts: usize, work: &(dyn Fn(usize) + Sync)) {
        self.share_among(self.parts(), parts, work);
    }

    fn share_among(&self, threads: usize, parts: usize, work: &(dyn Fn(usize) + Sync)) {
        let schedule = self.frame.schedule().filter(|_| parts > 1);
        let Some(schedule) = schedule else {
            return (0..parts).for_each(work);
        };
        // SAFETY: only the lifetime changes; a part is done before the wait below ends, and no other use is made of it.
        let work: *const (dyn Fn(usize) + Sync + 'static) = unsafe { std::mem::transmute(work) };
        let shared = Arc::new(Shared {
            work: Work(work),
            parts,
            next: AtomicUsize::new(0),
            done: Mutex::new(0),
            changed: Condvar::new(),
            failed: AtomicBool::new(false),
        });
        for _ in 1..threads.min(parts) {
            let mut args = ScheduleArgs {
                struct_size: size_of::<ScheduleArgs>(),
                extension: null_mut(),
                context: self.frame.context,
                task: help,
                data: Arc::into_raw(shared.clone()).cast_mut().cast(),
            };
            // SAFETY: the context is this call's; the task gets its own count of the work.
            let error = unsafe { schedule(&mut args) };
            if !error.is_null() {
                self.frame.forget(error);
                // SAFETY: a task that was refused is never run.
                drop(unsafe { Arc::from_raw(args.data.cast::<Shared>()) });
                break;
            }
        }
        shared.take_parts();
        let mut done = shared.done.lock().unwrap_or_else(PoisonError::into_inner);
        while *done < parts {
            let woken = shared.changed.wait(done);
            done = woken.unwrap_or_else(PoisonError::into_inner);
        }
        assert!(
            !shared.failed.load(Ordering::Relaxed),
            "a part of it panicked"
        );
    }
}

/// What a call's work is, while the call lasts.
struct Work(*const (dyn Fn(usize) + Sync));

// SAFETY: it points at what may be used by several threads.
unsafe impl Send for Work {}
// SAFETY: as above.
unsafe impl Sync for Work {}

struct Shared {
    work: Work,
    parts: usize,
    next: AtomicUsize,
    done: Mutex<usize>,
    changed: Condvar,
    failed: AtomicBool,
}

impl Shared {
    fn take_parts(&self) {
        loop {
            let part = self.next.fetch_add(1, Ordering::Relaxed);
            if part >= self.parts {
                return;
            }
            // A part that panics counts as done, or the calling thread would wait for ever.
            // SAFETY: the call waits for this part.
            let work = unsafe { &*self.work.0 };
            if catch_unwind(AssertUnwindSafe(|| work(part))).is_err() {
                self.failed.store(true, Ordering::Relaxed);
            }
            *self.done.lock().unwrap_or_else(PoisonError::into_inner) += 1;
            self.changed.notify_all();
        }
    }
}

unsafe extern "C" fn help(data: *mut c_void) {
    // SAFETY: each scheduled task has a count of its own.
    let shared = unsafe { Arc::from_raw(data.cast_const().cast::<Shared>()) };
    shared.take_parts();
}

unsafe extern "C" fn handler<F: Function>(frame: *mut Frame) -> *mut c_void {
    // SAFETY: the plugin gives a frame that lives as long as the call.
    let frame = unsafe { &*frame };
    // SAFETY: extensions begin with the base; that of metadata points at what is to be filled in.
    if let Some(base) = unsafe { frame.extension.as_ref() }
        && base.kind == METADATA
    {
        // The function is for the plugin's own version, if that has what is read here. Otherwise, or where the plugin does not tell its own, the
        // version stays 0.0, and is refused.
        if let Some(table) = frame.table() {
            // SAFETY: as above.
            let metadata = unsafe { &mut *(*frame.extension.cast::<MetadataExtension>()).metadata };
            metadata.version.major = table.version.major;
            metadata.version.minor = table.version.minor;
            metadata.traits = 0;
        }
        return null_mut();
    }
    let outcome = catch_unwind(AssertUnwindSafe(|| F::run(&mut Call { frame })));
    match outcome.unwrap_or_else(|_| Err("it panicked".into())) {
        Ok(()) => null_mut(),
        Err(reason) => frame.error(&format!("{}: {reason}\0", F::NAME)),
    }
}

/// With which every extension begins.
#[repr(C)]
struct Base {
    struct_size: usize,
    kind: c_int,
    next: *mut Base,
}

#[repr(C)]
struct Extension {
    base: Base,
    types: *const c_void,
    user_data: *const c_void,
    register: Option<unsafe extern "C" fn(*mut RegisterArgs) -> *mut c_void>,
}

#[repr(C)]
struct RegisterArgs {
    struct_size: usize,
    name: *const c_char,
    name_size: usize,
    handler: *mut c_void,
    platform: *const c_char,
    platform_size: usize,
    traits: c_int,
}

#[repr(C)]
struct Frame {
    struct_size: usize,
    extension: *const Base,
    api: *const Table,
    context: *mut c_void,
    stage: c_int,
    arguments: Arrays,
    results: Arrays,
    attributes: Attributes,
}

#[repr(C)]
struct MetadataExtension {
    base: Base,
    metadata: *mut Metadata,
}

#[repr(C)]
struct Metadata {
    struct_size: usize,
    version: Version,
    traits: u32,
}

#[repr(C)]
struct Version {
    struct_size: usize,
    extension: *mut c_void,
    major: c_int,
    minor: c_int,
}

/// `XLA_FFI_Args` and `XLA_FFI_Rets`, which are alike.
#[repr(C)]
struct Arrays {
    struct_size: usize,
    extension: *mut c_void,
    count: i64,
    types: *const c_int,
    arrays: *const *const Buffer,
}

#[repr(C)]
struct Buffer {
    struct_size: usize,
    extension: *mut c_void,
    dtype: c_int,
    data: *mut c_void,
    rank: i64,
    dims: *const i64,
}

#[repr(C)]
struct Attributes {
    struct_size: usize,
    extension: *mut c_void,
    count: i64,
    types: *const c_int,
    names: *const *const Span,
    values: *const *const c_void,
}

#[repr(C)]
struct Span {
    text: *const c_char,
    size: usize,
}

#[repr(C)]
struct Scalar {
    dtype: c_int,
    value: *const c_void,
}

#[repr(C)]
struct List {
    dtype: c_int,
    size: usize,
    values: *const c_void,
}

/// `XLA_FFI_Api`: the functions that a called one may call.
#[repr(C)]
struct Table {
    struct_size: usize,
    extension: *mut c_void,
    version: Version,
    internal: *const c_void,
    error_create: Option<unsafe extern "C" fn(*mut ErrorArgs) -> *mut c_void>,
    error_message: *const c_void,
    error_destroy: Option<unsafe extern "C" fn(*mut DestroyArgs)>,
    between: [*const c_void; 8],
    schedule: Option<Schedule>,
}

type Schedule = unsafe extern "C" fn(*mut ScheduleArgs) -> *mut c_void;

#[repr(C)]
struct ErrorArgs {
    struct_size: usize,
    extension: *mut c_void,
    message: *const c_char,
    code: c_int,
}

#[repr(C)]
struct DestroyArgs {
    struct_size: usize,
    extension: *mut c_void,
    error: *mut c_void,
}

#[repr(C)]
struct ScheduleArgs {
    struct_size: usize,
    extension: *mut c_void,
    context: *mut c_void,
    task: unsafe extern "C" fn(*mut c_void),
    data: *mut c_void,
}

impl Arrays {
    fn array(&self, index: usize) -> Result<(&'static [i64], *mut f32, usize), String> {
        if index >= self.count as usize {
            return Err(format!("there is no array {index}, but {}", self.count));
        }
        // SAFETY: the list has `count` entries; of buffers, the only kind there is.
        let buffer = unsafe { &**self.arrays.add(index) };
        if buffer.dtype != F32 {
            return Err(format!(
                "array {index} has elements of type {}, expected {F32} (f32)",
                buffer.dtype
            ));
        }
        if buffer.rank == 0 {
            return Ok((&[], buffer.data.cast(), 1));
        }
        // SAFETY: so many dimensions; they live as long as the call, which no array outlives (`Array`).
        let dims = unsafe { std::slice::from_raw_parts(buffer.dims, buffer.rank as usize) };
        let count = dims.iter().product::<i64>() as usize;
        if count == 0 {
            return Err(format!(
                "array {index} has dimensions {dims:?}, expected none of 0"
            ));
        }
        Ok((dims, buffer.data.cast(), count))
    }
}

impl Frame {
    /// The table, where it reaches as far as is read here.
    fn table(&self) -> Option<&Table> {
        if self.api.is_null() {
            return None;
        }
        // SAFETY: static; every table begins with its size, and one of this size has all that a `Table` has.
        let table = unsafe {
            let size = *self.api.cast::<usize>();
            (size >= size_of::<Table>()).then(|| &*self.api)?
        };
        (table.version.major == 0).then_some(table)
    }

    fn schedule(&self) -> Option<Schedule> {
        self.table()?.schedule
    }

    /// An error of the plugin's, from a text that ends with a zero.
    fn error(&self, text: &str) -> *mut c_void {
        let Some(create) = self.table().and_then(|table| table.error_create) else {
            // Null would say that all went well. (The function would not have been taken without this one.)
            std::process::abort();
        };
        let mut args = ErrorArgs {
            struct_size: size_of::<ErrorArgs>(),
            extension: null_mut(),
            message: text.as_ptr().cast(),
            code: INVALID,
        };
        // SAFETY: the plugin copies the text.
        unsafe { create(&mut args) }
    }

    fn forget(&self, error: *mut c_void) {
        if let Some(destroy) = self.table().and_then(|table| table.error_destroy) {
            let mut args = DestroyArgs {
                struct_size: size_of::<DestroyArgs>(),
                extension: null_mut(),
                error,
            };
            // SAFETY: ours to destroy, once.
            unsafe { destroy(&mut args) };
        }
    }
}

#[cfg(test)]
mod tests;
