//! The C layer: argument structs of the PJRT C API (version 0.81) here, and one typed, safe function per call in `client`, `executable`
//! and `buffer`.
//!
//! Everything `unsafe` of the project is in `pjrt`: here, in `profiler`, `key_value` and `process`. Layouts are facts of the public
//! header; a plugin accepts any struct at least as large as its own baseline, and 0.81 sizes are accepted by every later plugin.
#![expect(unsafe_code, reason = "the C interface of the plugins")]

mod buffer;
mod client;
mod executable;

use super::error::{Code, Error};
use super::key_value::{self, Shared};
use super::types::{ElementType, OptionValue};
use std::ffi::{c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::ptr::{null, null_mut};

/// An opaque object of the plugin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Handle(*mut c_void);

// SAFETY: PJRT objects may be used from any thread; the API is documented and was tested to be thread-safe. Ownership (who
// destroys a handle) is kept by the types above this file.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

/// Declares an argument struct with its two leading fields, its place in the function table, and its name.
macro_rules! call {
    ($name:ident, $slot:expr, { $($field:ident : $type:ty),* $(,)? }) => {
        #[repr(C)]
        struct $name {
            struct_size: usize,
            extension: *mut c_void,
            $($field: $type,)*
        }
        impl Args for $name {
            const SLOT: usize = $slot;
            const NAME: &'static str = concat!("PJRT_", stringify!($name));
        }
        impl $name {
            /// All zeros, `struct_size` set.
            fn new() -> Self {
                // SAFETY: every field is an integer, a bool, a pointer or a plain union of those, for which zero bits are valid.
                let mut args: Self = unsafe { std::mem::zeroed() };
                args.struct_size = size_of::<Self>();
                args
            }
        }
    };
}

trait Args {
    /// Index in the function table.
    const SLOT: usize;
    const NAME: &'static str;
}

/// The head of `PJRT_Api`; the function table starts right behind it.
#[repr(C)]
struct ApiHead {
    struct_size: usize,
    extension: *mut c_void,
    version_size: usize,
    version_extension: *mut c_void,
    major: c_int,
    minor: c_int,
}

#[repr(C)]
#[derive(Clone, Copy)]
union NamedUnion {
    string: *const c_char,
    int: i64,
    ints: *const i64,
    float: f32,
    bool: bool,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct NamedValue {
    struct_size: usize,
    extension: *mut c_void,
    name: *const c_char,
    name_size: usize,
    kind: c_int,
    value: NamedUnion,
    value_size: usize,
}

#[repr(C)]
struct ProgramFormat {
    struct_size: usize,
    extension: *mut c_void,
    code: *const u8,
    code_size: usize,
    format: *const c_char,
    format_size: usize,
}

#[repr(C)]
struct ExecuteOptions {
    struct_size: usize,
    extension: *mut c_void,
    send_callbacks: *mut c_void,
    recv_callbacks: *mut c_void,
    num_send_ops: usize,
    num_recv_ops: usize,
    launch_id: c_int,
    non_donatable: *const i64,
    num_non_donatable: usize,
    context: *mut c_void,
    call_location: *const c_char,
    num_tasks: usize,
    task_ids: *mut c_int,
    incarnation_ids: *mut i64,
}

call!(Error_Destroy, 0, { error: *mut c_void });
call!(Error_Message, 1, { error: *const c_void, message: *const c_char, message_size: usize });
call!(Error_GetCode, 2, { error: *const c_void, code: c_int });
call!(Plugin_Initialize, 3, {});
call!(Plugin_Attributes, 4, { attributes: *const NamedValue, count: usize });
call!(Event_Destroy, 5, { event: *mut c_void });
call!(Event_Await, 8, { event: *mut c_void });
call!(Client_Create, 10, {
    options: *const NamedValue, num_options: usize,
    kv_get: *mut c_void, kv_get_arg: *mut c_void, kv_put: *mut c_void, kv_put_arg: *mut c_void,
    client: *mut c_void, kv_try_get: *mut c_void, kv_try_get_arg: *mut c_void,
});
call!(Client_ProcessIndex, 13, { client: *mut c_void, process: c_int });
call!(Client_Devices, 15, { client: *mut c_void, devices: *const *mut c_void, count: usize });
call!(LoadedExecutable_AddressableDevices, 52, {
    executable: *mut c_void, devices: *const *mut c_void, count: usize,
});
call!(Client_Destroy, 11, { client: *mut c_void });
call!(Client_PlatformName, 12, { client: *mut c_void, text: *const c_char, size: usize });
call!(Client_PlatformVersion, 14, { client: *mut c_void, text: *const c_char, size: usize });
call!(Client_AddressableDevices, 16, { client: *mut c_void, devices: *const *mut c_void, count: usize });
call!(Client_Compile, 20, {
    client: *mut c_void, program: *const ProgramFormat, options: *const u8, options_size: usize,
    executable: *mut c_void,
});
call!(Client_BufferFromHostBuffer, 22, {
    client: *mut c_void, data: *const c_void, element_type: c_int, dims: *const i64, num_dims: usize,
    byte_strides: *const i64, num_byte_strides: usize, semantics: c_int, device: *mut c_void,
    memory: *mut c_void, layout: *mut c_void, done: *mut c_void, buffer: *mut c_void,
});
call!(DeviceDescription_Id, 23, { description: *mut c_void, id: c_int });
call!(DeviceDescription_ProcessIndex, 24, { description: *mut c_void, process: c_int });
call!(DeviceDescription_Attributes, 25, { description: *mut c_void, count: usize, attributes: *const NamedValue });
call!(DeviceDescription_Kind, 26, { description: *mut c_void, text: *const c_char, size: usize });
call!(DeviceDescription_ToString, 28, { description: *mut c_void, text: *const c_char, size: usize });
call!(Device_GetDescription, 29, { device: *mut c_void, description: *mut c_void });
call!(Device_MemoryStats, 34, {
    device: *mut c_void, bytes_in_use: i64, peak_bytes_in_use: i64, peak_is_set: bool,
    num_allocs: i64, num_allocs_is_set: bool, largest: i64, largest_is_set: bool,
    bytes_limit: i64, bytes_limit_is_set: bool, rest: [i64; 12],
});
call!(Executable_Destroy, 40, { executable: *mut c_void });
call!(Executable_NumOutputs, 44, { executable: *mut c_void, count: usize });
call!(Executable_GetCostAnalysis, 46, { executable: *mut c_void, count: usize, properties: *const NamedValue });
call!(Executable_OptimizedProgram, 48, { executable: *mut c_void, program: *mut ProgramFormat });
call!(Executable_Serialize, 49, {
    executable: *mut c_void, bytes: *const u8, size: usize, serialized: *mut c_void,
    deleter: Option<unsafe extern "C" fn(*mut c_void)>,
});
call!(LoadedExecutable_Destroy, 50, { executable: *mut c_void });
call!(LoadedExecutable_GetExecutable, 51, { loaded: *mut c_void, executable: *mut c_void });
call!(LoadedExecutable_Execute, 55, {
    executable: *mut c_void, options: *const ExecuteOptions, arguments: *const *const *mut c_void,
    num_devices: usize, num_args: usize, outputs: *const *mut *mut c_void,
    complete_events: *mut *mut c_void, execute_device: *mut c_void,
});
call!(Executable_DeserializeAndLoad, 56, {
    client: *mut c_void, bytes: *const u8, size: usize, loaded: *mut c_void,
    options: *const u8, options_size: usize,
});
call!(Buffer_Destroy, 58, { buffer: *mut c_void });
call!(Buffer_ElementType, 59, { buffer: *mut c_void, element_type: c_int });
call!(Buffer_Dimensions, 60, { buffer: *mut c_void, dims: *const i64, count: usize });
call!(Buffer_IsDeleted, 68, { buffer: *mut c_void, is_deleted: bool });
call!(Buffer_ToHostBuffer, 70, {
    source: *mut c_void, layout: *mut c_void, destination: *mut c_void, size: usize, event: *mut c_void,
});
/// A layout by dimensions, most minor first, without tiles (`PJRT_Buffer_MemoryLayout` with its tiled variant, the larger one).
#[repr(C)]
struct MemoryLayout {
    struct_size: usize,
    extension: *mut c_void,
    tiled_struct_size: usize,
    tiled_extension: *mut c_void,
    minor_to_major: *const i64,
    minor_to_major_size: usize,
    tile_dims: *const i64,
    tile_dim_sizes: *const usize,
    num_tiles: usize,
    /// 0: tiled.
    kind: c_int,
}
call!(Buffer_ReadyEvent, 72, { buffer: *mut c_void, event: *mut c_void });
call!(Buffer_UnsafePointer, 73, { buffer: *mut c_void, pointer: usize });
call!(TopologyDescription_Create, 82, {
    name: *const c_char, name_size: usize, options: *const NamedValue, num_options: usize, topology: *mut c_void,
});
call!(TopologyDescription_Destroy, 83, { topology: *mut c_void });
call!(TopologyDescription_PlatformVersion, 85, { topology: *mut c_void, text: *const c_char, size: usize });
call!(TopologyDescription_GetDeviceDescriptions, 86, {
    topology: *mut c_void, descriptions: *const *mut c_void, count: usize,
});
call!(Compile, 89, {
    topology: *mut c_void, program: *const ProgramFormat, options: *const u8, options_size: usize,
    client: *mut c_void, executable: *mut c_void,
});
call!(Executable_GetCompiledMemoryStats, 96, {
    executable: *mut c_void, generated_code: i64, argument: i64, output: i64, alias: i64, temp: i64,
    host_generated_code: i64, host_argument: i64, host_output: i64, host_alias: i64, host_temp: i64,
    peak: i64, newer: [i64; 8],
});

/// What a compiled program needs, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryUse {
    /// Arguments.
    pub argument: i64,
    /// Results.
    pub output: i64,
    /// Results that take over arguments.
    pub alias: i64,
    /// Temporaries.
    pub temp: i64,
    /// The program's code, where it lies in the device's memory.
    pub code: i64,
    /// The most at once, where the plugin says.
    pub peak: i64,
}

/// Memory of a device, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceMemory {
    /// In use now.
    pub in_use: i64,
    /// The most so far, if the plugin says.
    pub peak: Option<i64>,
    /// What there is, if the plugin says.
    pub limit: Option<i64>,
}

/// The function table of a loaded plugin, which is never unloaded (unloading crashes some plugins at exit).
#[derive(Debug)]
pub(super) struct Api {
    table: Handle,
    path: PathBuf,
}

type GetApi = unsafe extern "C" fn() -> *mut c_void;
type Function = unsafe extern "C" fn(*mut c_void) -> *mut c_void;

impl Api {
    /// Loads the library and finds its table.
    pub(super) fn load(path: &Path) -> Result<Self, Error> {
        // SAFETY: loading runs the library's initialisers; the caller chose it as a plugin.
        let library =
            unsafe { libloading::Library::new(path) }.map_err(|error| Error::NotLoadable {
                path: path.into(),
                reason: super::error::chain(&error),
            })?;
        let get: GetApi = {
            // SAFETY: the symbol, where it exists, is a function of this type by the PJRT convention.
            let symbol = unsafe { library.get::<GetApi>(b"GetPjrtApi\0") };
            *symbol.map_err(|_| Error::NotAPlugin { path: path.into() })?
        };
        std::mem::forget(library);
        // SAFETY: takes nothing, gives a pointer to a static table.
        let table = unsafe { get() };
        if table.is_null() {
            return Err(Error::NotAPlugin { path: path.into() });
        }
        Ok(Api {
            table: Handle(table),
            path: path.into(),
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn head(&self) -> &ApiHead {
        // SAFETY: the table is static, at least as large as its head in every version, and never freed.
        unsafe { &*self.table.0.cast::<ApiHead>() }
    }

    /// The first node of the plugin's list of extensions, static like the table.
    pub(super) fn extensions(&self) -> *mut c_void {
        self.head().extension
    }

    /// `(major, minor)`.
    pub(super) fn version(&self) -> (i32, i32) {
        (self.head().major, self.head().minor)
    }

    fn function<A: Args>(&self) -> Result<Function, Error> {
        let offset = size_of::<ApiHead>() + A::SLOT * size_of::<Function>();
        let missing = || Error::NoSuchCall {
            call: A::NAME,
            path: self.path.clone(),
            version: self.version(),
        };
        if offset + size_of::<Function>() > self.head().struct_size {
            return Err(missing());
        }
        // SAFETY: the slot lies inside the table by the check above; a slot is null or a function of this type.
        let slot = unsafe {
            *self
                .table
                .0
                .cast::<u8>()
                .add(offset)
                .cast::<Option<Function>>()
        };
        slot.ok_or_else(missing)
    }

    /// The one door: calls a function and turns its error object into ours.
    fn call<A: Args>(&self, args: &mut A) -> Result<(), Error> {
        let function = self.function::<A>()?;
        // SAFETY: `args` is the struct of this very function with `struct_size` set; every pointer in it was set by the caller in
        // this folder from a live reference or handle.
        let error = unsafe { function((&raw mut *args).cast()) };
        self.outcome(A::NAME, error)
    }

    /// What a call came to by the error object that it gave, which is ours to destroy.
    pub(super) fn outcome(&self, call: &'static str, error: *mut c_void) -> Result<(), Error> {
        if error.is_null() {
            Ok(())
        } else {
            Err(self.take_error(call, error))
        }
    }

    fn take_error(&self, call: &'static str, error: *mut c_void) -> Error {
        let mut message = Error_Message::new();
        message.error = error;
        let mut code = Error_GetCode::new();
        code.error = error;
        let mut text = String::new();
        if let Ok(function) = self.function::<Error_Message>() {
            // SAFETY: `error` is live; the message belongs to it and is copied before it is destroyed.
            unsafe { function((&raw mut message).cast()) };
            text = copy_text(message.message, message.message_size);
        }
        if let Ok(function) = self.function::<Error_GetCode>() {
            // SAFETY: as above. (Getting the code of an error does not itself fail.)
            unsafe { function((&raw mut code).cast()) };
        }
        let mut destroy = Error_Destroy::new();
        destroy.error = error;
        if let Ok(function) = self.function::<Error_Destroy>() {
            // SAFETY: `error` is ours and not used again.
            unsafe { function((&raw mut destroy).cast()) };
        }
        Error::Plugin {
            call,
            code: Code(code.code),
            message: text,
            path: self.path.clone(),
        }
    }

    pub(super) fn initialize(&self) -> Result<(), Error> {
        self.call(&mut Plugin_Initialize::new())
    }

    pub(super) fn attributes(&self) -> Result<Vec<(String, String)>, Error> {
        let mut args = Plugin_Attributes::new();
        self.call(&mut args)?;
        Ok(read_named(args.attributes, args.count)
            .into_iter()
            .map(|(name, value)| (name, value.to_string()))
            .collect())
    }

    /// Destruction has nobody to report to; an error is logged.
    fn destroy<A: Args>(&self, args: &mut A) {
        if let Err(error) = self.call(args) {
            tracing::warn!("{error}");
        }
    }
}

/// Code of a format (`hlo`, `mlir`) as plugins take it; it points into `module`.
fn program_of(format: &'static str, module: &[u8]) -> ProgramFormat {
    ProgramFormat {
        struct_size: size_of::<ProgramFormat>(),
        extension: null_mut(),
        code: module.as_ptr(),
        code_size: module.len(),
        format: format.as_ptr().cast(),
        format_size: format.len(),
    }
}

/// `count` values at `pointer`, none if it is null.
///
/// # Safety
/// A pointer that is not null must point to `count` values that outlive the result.
unsafe fn view<'a, T>(pointer: *const T, count: usize) -> &'a [T] {
    if pointer.is_null() || count == 0 {
        return &[];
    }
    // SAFETY: by the caller's promise.
    unsafe { std::slice::from_raw_parts(pointer, count) }
}

fn copy_text(pointer: *const c_char, size: usize) -> String {
    // SAFETY: the plugin's strings come with their length and outlive the object just asked.
    let bytes = unsafe { view(pointer.cast::<u8>(), size) };
    String::from_utf8_lossy(bytes).into_owned()
}

fn named_value(name: &str, value: &OptionValue) -> NamedValue {
    let (kind, value, value_size) = match value {
        OptionValue::Str(text) => (
            0,
            NamedUnion {
                string: text.as_ptr().cast(),
            },
            text.len(),
        ),
        OptionValue::Int(int) => (1, NamedUnion { int: *int }, 1),
        OptionValue::IntList(ints) => (
            2,
            NamedUnion {
                ints: ints.as_ptr(),
            },
            ints.len(),
        ),
        OptionValue::Float(float) => (3, NamedUnion { float: *float }, 1),
        OptionValue::Bool(bool) => (4, NamedUnion { bool: *bool }, 1),
    };
    NamedValue {
        struct_size: size_of::<NamedValue>(),
        extension: null_mut(),
        name: name.as_ptr().cast(),
        name_size: name.len(),
        kind,
        value,
        value_size,
    }
}

fn read_named(pointer: *const NamedValue, count: usize) -> Vec<(String, OptionValue)> {
    // SAFETY: the plugin gives that many values, which live as long as what they describe.
    let values = unsafe { view(pointer, count) };
    let read = |v: &NamedValue| -> Option<OptionValue> {
        // SAFETY: `kind` says which member of the union is set, and `value_size` how long a string or list is.
        unsafe {
            Some(match v.kind {
                0 => OptionValue::Str(copy_text(v.value.string, v.value_size)),
                1 => OptionValue::Int(v.value.int),
                2 => OptionValue::IntList(view(v.value.ints, v.value_size).to_vec()),
                3 => OptionValue::Float(v.value.float),
                4 => OptionValue::Bool(v.value.bool),
                _ => return None,
            })
        }
    };
    values
        .iter()
        .filter_map(|v| Some((copy_text(v.name, v.name_size), read(v)?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sizes of the 0.81 header; ours may be larger where trailing padding or spare room is counted, never smaller.
    #[test]
    fn structs_have_the_sizes_of_the_header() {
        assert_eq!(size_of::<ApiHead>(), 40);
        assert_eq!(size_of::<NamedValue>(), 56);
        assert_eq!(size_of::<Client_Create>(), 88);
        assert_eq!(size_of::<ProgramFormat>(), 48);
        assert_eq!(size_of::<Client_Compile>(), 56);
        assert_eq!(size_of::<ExecuteOptions>(), 112);
        assert_eq!(size_of::<LoadedExecutable_Execute>(), 80);
        assert_eq!(size_of::<Client_BufferFromHostBuffer>(), 120);
        assert_eq!(size_of::<Buffer_ToHostBuffer>(), 56);
        assert_eq!(size_of::<MemoryLayout>(), 80);
        assert_eq!(size_of::<TopologyDescription_Create>(), 56);
        assert_eq!(size_of::<Compile>(), 64);
        assert_eq!(size_of::<DeviceDescription_Id>(), 32); // 28 and 4 of padding
        assert!(size_of::<Device_MemoryStats>() >= 185);
        assert!(size_of::<Executable_GetCompiledMemoryStats>() >= 112);
        assert_eq!(
            std::mem::offset_of!(Executable_GetCompiledMemoryStats, newer),
            112
        );
        // 118 slots in a table of 984 bytes.
        assert_eq!((984 - size_of::<ApiHead>()) / size_of::<usize>(), 118);
    }
}
