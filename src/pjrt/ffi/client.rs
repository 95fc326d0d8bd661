//! Clients, their devices, and topologies without devices.

use super::*;

impl Api {
    /// A client; `store` must outlive it.
    pub(in crate::pjrt) fn create_client(
        &self,
        options: &[(&str, OptionValue)],
        store: Option<&Shared>,
    ) -> Result<Handle, Error> {
        let named: Vec<NamedValue> = options.iter().map(|(n, v)| named_value(n, v)).collect();
        let mut args = Client_Create::new();
        args.options = named.as_ptr();
        args.num_options = named.len();
        if let Some(store) = store {
            let user = (&raw const *store).cast_mut().cast();
            args.kv_get = key_value::get as *mut c_void;
            args.kv_put = key_value::put as *mut c_void;
            args.kv_try_get = key_value::try_get as *mut c_void;
            (args.kv_get_arg, args.kv_put_arg, args.kv_try_get_arg) = (user, user, user);
        }
        self.call(&mut args)?;
        Ok(Handle(args.client))
    }

    pub(in crate::pjrt) fn destroy_client(&self, client: Handle) {
        let mut args = Client_Destroy::new();
        args.client = client.0;
        self.destroy(&mut args);
    }

    pub(in crate::pjrt) fn platform_name(&self, client: Handle) -> Result<String, Error> {
        let mut args = Client_PlatformName::new();
        args.client = client.0;
        self.call(&mut args)?;
        Ok(copy_text(args.text, args.size))
    }

    pub(in crate::pjrt) fn platform_version(&self, client: Handle) -> Result<String, Error> {
        let mut args = Client_PlatformVersion::new();
        args.client = client.0;
        self.call(&mut args)?;
        Ok(copy_text(args.text, args.size))
    }

    /// The number of this process among those of a client.
    pub(in crate::pjrt) fn process(&self, client: Handle) -> Result<i64, Error> {
        let mut args = Client_ProcessIndex::new();
        args.client = client.0;
        self.call(&mut args)?;
        Ok(i64::from(args.process))
    }

    /// The devices of all processes of a client.
    pub(in crate::pjrt) fn all_devices(&self, client: Handle) -> Result<Vec<Handle>, Error> {
        let mut args = Client_Devices::new();
        args.client = client.0;
        self.call(&mut args)?;
        // SAFETY: the plugin gives that many device pointers, which live as long as the client.
        let devices = unsafe { view(args.devices, args.count) };
        Ok(devices.iter().map(|&device| Handle(device)).collect())
    }

    /// The devices of this process.
    pub(in crate::pjrt) fn devices(&self, client: Handle) -> Result<Vec<Handle>, Error> {
        let mut args = Client_AddressableDevices::new();
        args.client = client.0;
        self.call(&mut args)?;
        // SAFETY: the plugin gives that many device pointers, which live as long as the client.
        Ok(unsafe { view(args.devices, args.count) }
            .iter()
            .map(|&device| Handle(device))
            .collect())
    }

    /// `(id, kind, text)` of a device.
    pub(in crate::pjrt) fn describe(&self, device: Handle) -> Result<(i64, String, String), Error> {
        let description = self.description(device)?;
        let (id, kind) = self.description_id_kind(description)?;
        let mut text = DeviceDescription_ToString::new();
        text.description = description.0;
        self.call(&mut text)?;
        Ok((id, kind, copy_text(text.text, text.size)))
    }

    /// The description of a device.
    pub(in crate::pjrt) fn description(&self, device: Handle) -> Result<Handle, Error> {
        let mut get = Device_GetDescription::new();
        get.device = device.0;
        self.call(&mut get)?;
        Ok(Handle(get.description))
    }

    /// `(id, kind)` of a device description.
    pub(in crate::pjrt) fn description_id_kind(
        &self,
        description: Handle,
    ) -> Result<(i64, String), Error> {
        let mut id = DeviceDescription_Id::new();
        id.description = description.0;
        self.call(&mut id)?;
        let mut kind = DeviceDescription_Kind::new();
        kind.description = description.0;
        self.call(&mut kind)?;
        Ok((i64::from(id.id), copy_text(kind.text, kind.size)))
    }

    /// The process that a described device belongs to.
    pub(in crate::pjrt) fn description_process(&self, description: Handle) -> Result<i64, Error> {
        let mut args = DeviceDescription_ProcessIndex::new();
        args.description = description.0;
        self.call(&mut args)?;
        Ok(i64::from(args.process))
    }

    /// What a plugin tells of a described device beside its kind.
    pub(in crate::pjrt) fn description_attributes(
        &self,
        description: Handle,
    ) -> Result<Vec<(String, OptionValue)>, Error> {
        let mut args = DeviceDescription_Attributes::new();
        args.description = description.0;
        self.call(&mut args)?;
        Ok(read_named(args.attributes, args.count))
    }

    /// A description of devices that need not be there.
    pub(in crate::pjrt) fn create_topology(
        &self,
        name: &str,
        options: &[(&str, OptionValue)],
    ) -> Result<Handle, Error> {
        let named: Vec<NamedValue> = options.iter().map(|(n, v)| named_value(n, v)).collect();
        let mut args = TopologyDescription_Create::new();
        args.name = name.as_ptr().cast();
        args.name_size = name.len();
        args.options = named.as_ptr();
        args.num_options = named.len();
        self.call(&mut args)?;
        Ok(Handle(args.topology))
    }

    pub(in crate::pjrt) fn destroy_topology(&self, topology: Handle) {
        let mut args = TopologyDescription_Destroy::new();
        args.topology = topology.0;
        self.destroy(&mut args);
    }

    pub(in crate::pjrt) fn topology_version(&self, topology: Handle) -> Result<String, Error> {
        let mut args = TopologyDescription_PlatformVersion::new();
        args.topology = topology.0;
        self.call(&mut args)?;
        Ok(copy_text(args.text, args.size))
    }

    /// Descriptions of a topology's devices, which live as long as it does.
    pub(in crate::pjrt) fn topology_devices(&self, topology: Handle) -> Result<Vec<Handle>, Error> {
        let mut args = TopologyDescription_GetDeviceDescriptions::new();
        args.topology = topology.0;
        self.call(&mut args)?;
        // SAFETY: the plugin gives that many description pointers, which live as long as the topology.
        Ok(unsafe { view(args.descriptions, args.count) }
            .iter()
            .map(|&description| Handle(description))
            .collect())
    }

    pub(in crate::pjrt) fn device_memory(&self, device: Handle) -> Result<DeviceMemory, Error> {
        let mut args = Device_MemoryStats::new();
        args.device = device.0;
        self.call(&mut args)?;
        Ok(DeviceMemory {
            in_use: args.bytes_in_use,
            peak: args.peak_is_set.then_some(args.peak_bytes_in_use),
            limit: args.bytes_limit_is_set.then_some(args.bytes_limit),
        })
    }
}
