//! The profiler that some plugins bring as an extension of the PJRT C API.
#![expect(unsafe_code, reason = "the C interface of the plugins")]

use super::client::{Client, Plugin};
use super::error::{Code, Error};
use super::ffi::Api;
use super::trace::Trace;
use crate::proto::xplane::ProfileOptions;
use prost::Message;
use std::ffi::{c_char, c_int, c_void};
use std::ptr::null_mut;
use std::sync::Arc;

/// `PJRT_Extension_Type_Profiler`.
const PROFILER: c_int = 1;

/// A node of the list of extensions; the profiler's has the last field.
#[repr(C)]
struct Extension {
    struct_size: usize,
    kind: c_int,
    next: *mut Extension,
    functions: *const Functions,
}

type Call<A> = unsafe extern "C" fn(*mut A) -> *mut c_void;

/// `PLUGIN_Profiler_Api`.
#[repr(C)]
struct Functions {
    struct_size: usize,
    private: *mut c_void,
    error_destroy: Option<Call<ErrorArgs>>,
    error_message: Option<Call<MessageArgs>>,
    error_code: Option<Call<CodeArgs>>,
    create: Option<Call<CreateArgs>>,
    destroy: Option<Call<ProfilerArgs>>,
    start: Option<Call<ProfilerArgs>>,
    stop: Option<Call<ProfilerArgs>>,
    collect: Option<Call<CollectArgs>>,
}

#[repr(C)]
struct ErrorArgs {
    struct_size: usize,
    private: *mut c_void,
    error: *mut c_void,
}

#[repr(C)]
struct MessageArgs {
    struct_size: usize,
    private: *mut c_void,
    error: *mut c_void,
    message: *const c_char,
    message_size: usize,
}

#[repr(C)]
struct CodeArgs {
    struct_size: usize,
    private: *mut c_void,
    error: *mut c_void,
    code: c_int,
}

#[repr(C)]
struct CreateArgs {
    struct_size: usize,
    options: *const u8,
    options_size: usize,
    profiler: *mut c_void,
}

#[repr(C)]
struct ProfilerArgs {
    struct_size: usize,
    profiler: *mut c_void,
}

#[repr(C)]
struct CollectArgs {
    struct_size: usize,
    profiler: *mut c_void,
    buffer: *mut u8,
    size: usize,
}

/// A running recording of what the plugin's devices and threads do. Dropping it throws the recording away.
pub struct Profiler {
    api: Arc<Api>,
    functions: &'static Functions,
    handle: *mut c_void,
}

impl Drop for Profiler {
    fn drop(&mut self) {
        if self.handle.is_null() {
            return; // was not created
        }
        let mut args = self.args();
        if let Err(error) = self.call("Profiler_Destroy", self.functions.destroy, &mut args) {
            tracing::warn!("{error}");
        }
    }
}

impl Profiler {
    /// Whether the plugin has one.
    pub fn is_in(plugin: &Plugin) -> bool {
        functions(plugin.api()).is_some()
    }

    /// Starts to record; nothing where the plugin has no profiler.
    ///
    /// # Errors
    /// If the plugin has one and it does not start.
    pub fn start(client: &Client) -> Result<Option<Self>, Error> {
        let api = client.inner.api.clone();
        let Some(functions) = functions(&api) else {
            return Ok(None);
        };
        let options = ProfileOptions {
            // The host's important events; the CPU plugin's operations are among them.
            host_tracer_level: 2,
            device_tracer_level: 1,
            version: 1,
        }
        .encode_to_vec();
        let mut profiler = Profiler {
            api,
            functions,
            handle: null_mut(),
        };
        let mut args = CreateArgs {
            struct_size: size_of::<CreateArgs>(),
            options: options.as_ptr(),
            options_size: options.len(),
            profiler: null_mut(),
        };
        profiler.call("Profiler_Create", functions.create, &mut args)?;
        profiler.handle = args.profiler;
        profiler.call("Profiler_Start", functions.start, &mut profiler.args())?;
        Ok(Some(profiler))
    }

    /// Ends the recording and gives it.
    ///
    /// # Errors
    /// If the plugin refuses, or what it gives cannot be read.
    pub fn stop(self) -> Result<Trace, Error> {
        self.call("Profiler_Stop", self.functions.stop, &mut self.args())?;
        let mut args = CollectArgs {
            struct_size: size_of::<CollectArgs>(),
            profiler: self.handle,
            buffer: null_mut(),
            size: 0,
        };
        let call = "Profiler_CollectData";
        self.call(call, self.functions.collect, &mut args)?;
        let bytes = if args.buffer.is_null() {
            // This plugin has only told the size.
            let mut bytes = vec![0u8; args.size];
            args.buffer = bytes.as_mut_ptr();
            self.call(call, self.functions.collect, &mut args)?;
            bytes.truncate(args.size);
            bytes
        } else {
            // SAFETY: the plugin has filled that many bytes of a buffer of its own, which lives until the profiler is destroyed.
            unsafe { std::slice::from_raw_parts(args.buffer, args.size) }.to_vec()
        };
        Trace::read(&bytes).map_err(|error| {
            Error::Misuse(format!(
                "plugin {} gave a profile that cannot be read: {error}; measure without --profile",
                self.api.path().display()
            ))
        })
    }

    fn args(&self) -> ProfilerArgs {
        ProfilerArgs {
            struct_size: size_of::<ProfilerArgs>(),
            profiler: self.handle,
        }
    }

    /// Calls a function and turns its error object into ours.
    fn call<A>(
        &self,
        name: &'static str,
        function: Option<Call<A>>,
        args: &mut A,
    ) -> Result<(), Error> {
        let Some(function) = function else {
            return Err(Error::NoSuchCall {
                call: name,
                path: self.api.path().into(),
                version: self.api.version(),
            });
        };
        // SAFETY: `args` is the struct of this very function with its size set; every pointer in it is live.
        let error = unsafe { function(args) };
        if error.is_null() {
            Ok(())
        } else {
            Err(self.take_error(name, error))
        }
    }

    fn take_error(&self, call: &'static str, error: *mut c_void) -> Error {
        let private = null_mut();
        let mut text = String::new();
        if let Some(message) = self.functions.error_message {
            let mut args = MessageArgs {
                struct_size: size_of::<MessageArgs>(),
                private,
                error,
                message: std::ptr::null(),
                message_size: 0,
            };
            // SAFETY: `error` is live; the message belongs to it and is copied before it is destroyed.
            unsafe { message(&raw mut args) };
            if !args.message.is_null() {
                // SAFETY: the plugin gives that many bytes.
                let bytes = unsafe {
                    std::slice::from_raw_parts(args.message.cast::<u8>(), args.message_size)
                };
                text = String::from_utf8_lossy(bytes).into_owned();
            }
        }
        let mut code = CodeArgs {
            struct_size: size_of::<CodeArgs>(),
            private,
            error,
            code: 2,
        };
        if let Some(get) = self.functions.error_code {
            // SAFETY: as above.
            unsafe { get(&raw mut code) };
        }
        if let Some(destroy) = self.functions.error_destroy {
            let mut args = ErrorArgs {
                struct_size: size_of::<ErrorArgs>(),
                private,
                error,
            };
            // SAFETY: `error` is ours and not used again.
            unsafe { destroy(&raw mut args) };
        }
        Error::Plugin {
            call,
            code: Code(code.code),
            message: text,
            path: self.api.path().into(),
        }
    }
}

/// The profiler's functions among the plugin's extensions, if they are there and all of them.
fn functions(api: &Api) -> Option<&'static Functions> {
    let mut node = api.extensions().cast::<Extension>();
    // SAFETY: the list is static like the table it hangs from; its nodes begin with these three fields, a profiler's has the fourth.
    unsafe {
        while let Some(extension) = node.as_ref() {
            if extension.kind == PROFILER && extension.struct_size >= size_of::<Extension>() {
                let functions = extension.functions.as_ref()?;
                return (functions.struct_size >= size_of::<Functions>()).then_some(functions);
            }
            node = extension.next;
        }
    }
    None
}
