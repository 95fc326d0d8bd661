//! Arrays on devices, and the events that say when they are ready.

use super::*;

impl Api {
    /// Copies `bytes`, which must be a dense row-major array of this type and these dimensions, to a device.
    pub(in crate::pjrt) fn put(
        &self,
        client: Handle,
        bytes: &[u8],
        element_type: ElementType,
        dims: &[i64],
        device: Handle,
    ) -> Result<Handle, Error> {
        let mut args = Client_BufferFromHostBuffer::new();
        args.client = client.0;
        args.data = bytes.as_ptr().cast();
        args.element_type = element_type.code();
        args.dims = dims.as_ptr();
        args.num_dims = dims.len();
        args.semantics = 0; // immutable only during the call: the plugin copies before it returns
        args.device = device.0;
        self.call(&mut args)?;
        if !args.done.is_null() {
            self.destroy_event(Handle(args.done));
        }
        Ok(Handle(args.buffer))
    }

    pub(in crate::pjrt) fn destroy_event(&self, event: Handle) {
        let mut args = Event_Destroy::new();
        args.event = event.0;
        self.destroy(&mut args);
    }

    /// Waits for an event and destroys it.
    pub(in crate::pjrt) fn finish_event(&self, event: Handle) -> Result<(), Error> {
        let mut args = Event_Await::new();
        args.event = event.0;
        let result = self.call(&mut args);
        self.destroy_event(event);
        result
    }

    pub(in crate::pjrt) fn destroy_buffer(&self, buffer: Handle) {
        let mut args = Buffer_Destroy::new();
        args.buffer = buffer.0;
        self.destroy(&mut args);
    }

    pub(in crate::pjrt) fn buffer_type(
        &self,
        buffer: Handle,
    ) -> Result<Option<ElementType>, Error> {
        let mut args = Buffer_ElementType::new();
        args.buffer = buffer.0;
        self.call(&mut args)?;
        Ok(ElementType::from_code(args.element_type))
    }

    pub(in crate::pjrt) fn buffer_dims(&self, buffer: Handle) -> Result<Vec<i64>, Error> {
        let mut args = Buffer_Dimensions::new();
        args.buffer = buffer.0;
        self.call(&mut args)?;
        // SAFETY: the plugin gives that many dimensions, which live as long as the buffer.
        Ok(unsafe { view(args.dims, args.count) }.to_vec())
    }

    pub(in crate::pjrt) fn is_deleted(&self, buffer: Handle) -> Result<bool, Error> {
        let mut args = Buffer_IsDeleted::new();
        args.buffer = buffer.0;
        self.call(&mut args)?;
        Ok(args.is_deleted)
    }

    pub(in crate::pjrt) fn ready(&self, buffer: Handle) -> Result<(), Error> {
        let mut args = Buffer_ReadyEvent::new();
        args.buffer = buffer.0;
        self.call(&mut args)?;
        self.finish_event(Handle(args.event))
    }

    pub(in crate::pjrt) fn device_pointer(&self, buffer: Handle) -> Result<usize, Error> {
        let mut args = Buffer_UnsafePointer::new();
        args.buffer = buffer.0;
        self.call(&mut args)?;
        Ok(args.pointer)
    }

    /// Copies a buffer of `size` bytes and `rank` dimensions to the host, in row-major order whatever the device's own, and waits.
    pub(in crate::pjrt) fn to_host(
        &self,
        buffer: Handle,
        size: usize,
        rank: usize,
    ) -> Result<Vec<u8>, Error> {
        let mut bytes = vec![0u8; size];
        let minor_to_major: Vec<i64> = (0..rank as i64).rev().collect();
        let mut layout = MemoryLayout {
            struct_size: size_of::<MemoryLayout>(),
            extension: null_mut(),
            tiled_struct_size: std::mem::offset_of!(MemoryLayout, kind)
                - std::mem::offset_of!(MemoryLayout, tiled_struct_size),
            tiled_extension: null_mut(),
            minor_to_major: minor_to_major.as_ptr(),
            minor_to_major_size: rank,
            tile_dims: null(),
            tile_dim_sizes: null(),
            num_tiles: 0,
            kind: 0,
        };
        let mut args = Buffer_ToHostBuffer::new();
        args.source = buffer.0;
        args.layout = (&raw mut layout).cast();
        args.destination = bytes.as_mut_ptr().cast();
        args.size = size;
        self.call(&mut args)?;
        // The plugin writes into `bytes` until this event fires, and we wait for it before `bytes` can move or die.
        self.finish_event(Handle(args.event))?;
        Ok(bytes)
    }
}
