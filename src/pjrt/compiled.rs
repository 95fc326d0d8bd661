//! What a compiler made of a module: its costs, its memory, its code. It need not be on any device.

use super::error::Error;
use super::ffi::{Api, Handle, MemoryUse};
use std::sync::Arc;

/// A compiled program.
pub struct Compiled {
    api: Arc<Api>,
    handle: Handle,
}

impl Drop for Compiled {
    fn drop(&mut self) {
        self.api.destroy_executable(self.handle);
    }
}

impl Compiled {
    /// Takes ownership of a handle.
    pub(super) fn adopt(api: Arc<Api>, handle: Handle) -> Self {
        Compiled { api, handle }
    }

    /// The plugin's estimates, such as `flops` and `bytes accessed`.
    ///
    /// # Errors
    /// If the plugin has none.
    pub fn cost_analysis(&self) -> Result<Vec<(String, f64)>, Error> {
        self.api.cost_analysis(self.handle)
    }

    /// Memory that a launch needs on each device.
    ///
    /// # Errors
    /// If the plugin does not tell.
    pub fn memory_use(&self) -> Result<MemoryUse, Error> {
        self.api.memory_use(self.handle)
    }

    /// The program as bytes, for [`super::Client::load`] of the same plugin on the same kind of device and processor.
    ///
    /// # Errors
    /// If the plugin cannot.
    pub fn serialize(&self) -> Result<Vec<u8>, Error> {
        self.api.serialize(self.handle)
    }

    /// The optimised program in the plugin's serialised form (`HloModuleProtoWithConfig`).
    ///
    /// # Errors
    /// If the plugin does not give it.
    pub fn optimized_program(&self) -> Result<Vec<u8>, Error> {
        self.api.optimized_program(self.handle)
    }
}
