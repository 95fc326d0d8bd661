//! The PJRT C API: plugins, clients, devices, buffers, executables.
//!
//! A plugin is a shared library that compiles HLO and runs it on one kind of device. [`find`] looks for one, [`ensure`] fetches
//! the pinned CPU plugin where there is none, [`Plugin::load`] opens it, [`Client::new`] drives it.
//!
//! Plugins trust their caller: several mistakes abort the process or leave it hanging. So everything a launch depends on (count,
//! types, dimensions, devices, donation) is checked here first.
//!
//! Invariant: this module knows nothing of graphs; modules come in as bytes.

mod client;
mod error;
mod executable;
mod ffi;
mod install;
mod process;
mod search;
mod types;

pub use client::{Buffer, Client, Device, Plugin};
pub use error::{Code, Error};
pub use executable::{Argument, BufferSpec, CompileOptions, Executable};
pub use ffi::{DeviceMemory, MemoryUse};
pub use install::{Installed, Package, ensure, install};
pub use process::prepare_process;
pub use search::{Found, Platform, Source, cache_folder, find, list};
pub use types::{ElementType, OptionValue};
