//! The key-value store that a plugin of several processes asks for, as the C functions that it calls.
#![expect(
    unsafe_code,
    reason = "functions that a plugin calls, with its own pointers"
)]

use std::ffi::{c_char, c_int, c_void};
use std::ptr::null_mut;
use std::sync::Arc;
use std::time::Duration;

/// Where processes leave values for each other. Errors are words for the plugin.
pub trait KeyValue: Send + Sync {
    /// Leaves a value.
    ///
    /// # Errors
    /// If the store is gone, or has another value there.
    fn put(&self, key: &[u8], value: &[u8]) -> Result<(), String>;

    /// The value of a key, waiting for it; none if it is not there in time.
    ///
    /// # Errors
    /// If the store is gone.
    fn get(&self, key: &[u8], patience: Duration) -> Result<Option<Vec<u8>>, String>;
}

/// This process among those of a client.
#[derive(Clone)]
pub struct Node {
    /// Its number.
    pub id: usize,
    /// How many there are.
    pub count: usize,
    /// By which they find each other.
    pub store: Arc<dyn KeyValue>,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "node {} of {}", self.id, self.count)
    }
}

/// What callbacks get as `user_arg`: a pointer to one of these, which lives as long as the client.
pub(super) type Shared = Arc<dyn KeyValue>;

const DEADLINE_EXCEEDED: c_int = 4;
const NOT_FOUND: c_int = 5;
const UNAVAILABLE: c_int = 14;

/// Makes an error of the plugin's own.
type MakeError = unsafe extern "C" fn(c_int, *const c_char, usize) -> *mut c_void;

/// `PJRT_KeyValueGetCallback_Args`.
#[repr(C)]
pub(super) struct Get {
    struct_size: usize,
    extension: *mut c_void,
    key: *const c_char,
    key_size: usize,
    timeout_ms: c_int,
    error: *const MakeError,
    user: *const c_void,
    value: *mut c_char,
    value_size: usize,
    deleter: Option<unsafe extern "C" fn(*mut c_char)>,
}

/// `PJRT_KeyValueTryGetCallback_Args`.
#[repr(C)]
pub(super) struct TryGet {
    struct_size: usize,
    extension: *mut c_void,
    key: *const c_char,
    key_size: usize,
    error: *const MakeError,
    user: *const c_void,
    value: *mut c_char,
    value_size: usize,
    deleter: Option<unsafe extern "C" fn(*mut c_char)>,
}

/// `PJRT_KeyValuePutCallback_Args`.
#[repr(C)]
pub(super) struct Put {
    struct_size: usize,
    extension: *mut c_void,
    key: *const c_char,
    key_size: usize,
    value: *const c_char,
    value_size: usize,
    error: *const MakeError,
    user: *const c_void,
}

/// Waits for a value.
///
/// # Safety
/// To be called by a plugin with its arguments, whose `user` is the pointer to the [`Shared`] that it was given.
pub(super) unsafe extern "C" fn get(args: *mut Get) -> *mut c_void {
    // SAFETY: by this function's contract.
    let args = unsafe { &mut *args };
    let patience = Duration::from_millis(u64::try_from(args.timeout_ms).unwrap_or(0));
    // SAFETY: as above; the key is that many bytes.
    let found = unsafe { store(args.user).get(bytes(args.key, args.key_size), patience) };
    let reply = (&mut args.value, &mut args.value_size, &mut args.deleter);
    // SAFETY: as above.
    unsafe { answer(found, DEADLINE_EXCEEDED, args.error, reply) }
}

/// Gives a value that is there now.
///
/// # Safety
/// As [`get`].
pub(super) unsafe extern "C" fn try_get(args: *mut TryGet) -> *mut c_void {
    // SAFETY: by this function's contract.
    let args = unsafe { &mut *args };
    // SAFETY: as above; the key is that many bytes.
    let found = unsafe { store(args.user).get(bytes(args.key, args.key_size), Duration::ZERO) };
    let reply = (&mut args.value, &mut args.value_size, &mut args.deleter);
    // SAFETY: as above.
    unsafe { answer(found, NOT_FOUND, args.error, reply) }
}

/// Leaves a value.
///
/// # Safety
/// As [`get`].
pub(super) unsafe extern "C" fn put(args: *mut Put) -> *mut c_void {
    // SAFETY: by this function's contract; key and value are that many bytes.
    unsafe {
        let args = &*args;
        let key = bytes(args.key, args.key_size);
        match store(args.user).put(key, bytes(args.value, args.value_size)) {
            Ok(()) => null_mut(),
            Err(words) => fail(args.error, UNAVAILABLE, &words),
        }
    }
}

unsafe fn store<'a>(user: *const c_void) -> &'a Shared {
    // SAFETY: `user` is the pointer that the client was created with, to a value that outlives the client.
    unsafe { &*user.cast::<Shared>() }
}

unsafe fn bytes<'a>(start: *const c_char, size: usize) -> &'a [u8] {
    if start.is_null() || size == 0 {
        return &[];
    }
    // SAFETY: the plugin gives that many bytes, alive during the call.
    unsafe { std::slice::from_raw_parts(start.cast(), size) }
}

unsafe fn fail(error: *const MakeError, code: c_int, words: &str) -> *mut c_void {
    // SAFETY: the plugin gives a function that copies the words.
    unsafe { (*error)(code, words.as_ptr().cast(), words.len()) }
}

type Reply<'a> = (
    &'a mut *mut c_char,
    &'a mut usize,
    &'a mut Option<unsafe extern "C" fn(*mut c_char)>,
);

unsafe fn answer(
    found: Result<Option<Vec<u8>>, String>,
    missing: c_int,
    error: *const MakeError,
    (value, size, deleter): Reply,
) -> *mut c_void {
    let found = match found {
        Ok(Some(found)) => found,
        // SAFETY: by the caller's contract.
        Ok(None) => return unsafe { fail(error, missing, "no such key in time") },
        // SAFETY: as above.
        Err(words) => return unsafe { fail(error, UNAVAILABLE, &words) },
    };
    // The plugin gives back nothing but the pointer, so that the size must be known to whoever frees it: the C library.
    // SAFETY: at least one byte is asked for.
    let copy = unsafe { libc::malloc(found.len().max(1)) };
    if copy.is_null() {
        // SAFETY: as above.
        return unsafe { fail(error, UNAVAILABLE, "no memory for a value") };
    }
    // SAFETY: both are that long, and the copy is new.
    unsafe { std::ptr::copy_nonoverlapping(found.as_ptr(), copy.cast(), found.len()) };
    *value = copy.cast();
    *size = found.len();
    *deleter = Some(delete);
    null_mut()
}

unsafe extern "C" fn delete(value: *mut c_char) {
    // SAFETY: the plugin gives back what `answer` gave it, once.
    unsafe { libc::free(value.cast()) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;
    use std::sync::Mutex;

    #[derive(Default)]
    struct Map(Mutex<HashMap<Vec<u8>, Vec<u8>>>);

    impl KeyValue for Map {
        fn put(&self, key: &[u8], value: &[u8]) -> Result<(), String> {
            if key == b"gone" {
                return Err("the store is gone".into());
            }
            self.0.lock().unwrap().insert(key.into(), value.into());
            Ok(())
        }

        fn get(&self, key: &[u8], _: Duration) -> Result<Option<Vec<u8>>, String> {
            Ok(self.0.lock().unwrap().get(key).cloned())
        }
    }

    /// An error of this test's plugin: code and words.
    unsafe extern "C" fn make_error(code: c_int, words: *const c_char, size: usize) -> *mut c_void {
        // SAFETY: the callbacks give words of that size.
        let words = String::from_utf8_lossy(unsafe { bytes(words, size) }).into_owned();
        Box::into_raw(Box::new((code, words))).cast()
    }

    fn taken(error: *mut c_void) -> Option<(c_int, String)> {
        // SAFETY: what `make_error` made, or null.
        (!error.is_null()).then(|| *unsafe { Box::from_raw(error.cast::<(c_int, String)>()) })
    }

    /// Calls as a plugin does, with its struct's layout, and frees as it does.
    #[test]
    fn a_plugin_puts_and_gets() {
        assert_eq!((size_of::<Get>(), size_of::<TryGet>()), (80, 72));
        assert_eq!(size_of::<Put>(), 64);
        let shared: Shared = Arc::new(Map::default());
        let make: MakeError = make_error;
        let user = (&raw const shared).cast();
        let put = |key: &[u8], value: &[u8]| {
            let mut args = Put {
                struct_size: size_of::<Put>(),
                extension: null_mut(),
                key: key.as_ptr().cast(),
                key_size: key.len(),
                value: value.as_ptr().cast(),
                value_size: value.len(),
                error: &raw const make,
                user,
            };
            // SAFETY: as a plugin would.
            taken(unsafe { super::put(&raw mut args) })
        };
        let get = |key: &[u8], wait: bool| {
            let (error, value, size, deleter) = if wait {
                let mut args = Get {
                    struct_size: size_of::<Get>(),
                    extension: null_mut(),
                    key: key.as_ptr().cast(),
                    key_size: key.len(),
                    timeout_ms: 10,
                    error: &raw const make,
                    user,
                    value: null_mut(),
                    value_size: 0,
                    deleter: None,
                };
                // SAFETY: as a plugin would.
                let error = unsafe { super::get(&raw mut args) };
                (error, args.value, args.value_size, args.deleter)
            } else {
                let mut args = TryGet {
                    struct_size: size_of::<TryGet>(),
                    extension: null_mut(),
                    key: key.as_ptr().cast(),
                    key_size: key.len(),
                    error: &raw const make,
                    user,
                    value: null_mut(),
                    value_size: 0,
                    deleter: None,
                };
                // SAFETY: as a plugin would.
                let error = unsafe { super::try_get(&raw mut args) };
                (error, args.value, args.value_size, args.deleter)
            };
            match taken(error) {
                Some(error) => Err(error),
                None => {
                    // SAFETY: the callback gave that many bytes and a function that frees them.
                    let copy = unsafe { bytes(value, size) }.to_vec();
                    // SAFETY: once.
                    unsafe { deleter.expect("a deleter")(value) };
                    Ok(copy)
                }
            }
        };
        assert_eq!(put(b"local\0topology", b"a\0b"), None);
        assert_eq!(put(b"empty", b""), None);
        for wait in [true, false] {
            assert_eq!(get(b"local\0topology", wait), Ok(b"a\0b".to_vec()));
            assert_eq!(get(b"empty", wait), Ok(Vec::new()));
        }
        assert_eq!(get(b"missing", true).unwrap_err().0, DEADLINE_EXCEEDED);
        assert_eq!(get(b"missing", false).unwrap_err().0, NOT_FOUND);
        let refused = put(b"gone", b"x");
        assert_eq!(refused, Some((UNAVAILABLE, "the store is gone".into())));
    }
}
