//! What a caller can do about an error: the one classification every module's error maps to.

/// The kind of failure, each with the process exit code the command line ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The run itself failed: not-a-number loss, a compiler error, a bug.
    Failed,
    /// Wrong usage or configuration: the user changes the command or the YAML.
    Usage,
    /// Plugin, device, permission, disk or network: the user changes the machine.
    Environment,
    /// A check said no: data or a checkpoint that may not be used.
    Check,
    /// Something that may come back by itself, such as another machine: the same command may go on.
    Again,
}

impl Class {
    /// The exit code of the process for this class.
    pub fn exit_code(self) -> u8 {
        match self {
            Class::Failed => 1,
            Class::Usage => 2,
            Class::Environment => 3,
            Class::Check => 4,
            Class::Again => 75,
        }
    }
}
