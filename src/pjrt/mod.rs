//! The PJRT C API: plugins, clients, devices, buffers, executables, topologies.
//!
//! A plugin is a shared library that compiles HLO and runs it on one kind of device. [`find`] looks for one, [`ensure`] fetches
//! the pinned CPU plugin where there is none, [`Plugin::load`] opens it, [`Client::new`] drives it, [`Topology::compile`]
//! compiles for devices that are not there.
//!
//! Plugins trust their caller: several mistakes abort the process or leave it hanging. So everything a launch depends on (count,
//! types, dimensions, devices, donation) is checked here first.
//!
//! Invariant: this module knows nothing of graphs; modules come in as bytes.

mod calls;
mod client;
mod compiled;
mod elf;
mod error;
mod executable;
mod ffi;
mod install;
mod key_value;
mod pins;
mod process;
mod profiler;
mod search;
mod topology;
mod trace;
mod types;

pub use calls::{Array, Call, Function, Sharing, register};
pub use client::{Buffer, Client, Device, Plugin};
pub use compiled::Compiled;
pub use error::{Code, Error};
pub use executable::{Argument, BufferSpec, CompileOptions, Executable};
pub use ffi::{DeviceMemory, MemoryUse};
pub use install::{Installed, ensure, install};
pub use key_value::{KeyValue, Node};
pub use pins::Package;
pub use process::{
    WITHOUT_TPU, end_at_once, keep_memory, prepare_process, set_variables, tpu_chips,
};
pub use profiler::Profiler;
pub use search::{Found, Platform, Source, find, list};
pub use topology::{DescribedDevice, Topology};
pub use trace::{Span, Trace};
pub use types::{ElementType, OptionValue};
