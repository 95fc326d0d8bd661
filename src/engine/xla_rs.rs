//! The crate `xla` (xla-rs) as a second engine, behind the feature `xla-rs`: the same modules through an XLA that is linked in.
//!
//! It drives one process and one device. The crate needs a `libxla_extension` unpacked at `XLA_EXTENSION_DIR`, a C++ compiler and
//! libclang; it and our plugins have nothing in common but XLA, which is what makes it worth comparing with.

use super::{Error, RunModule};
use crate::hlo::{DType, Literal, Module, Shape};
use xla::{ElementType, HloModuleProto, PjRtClient, PjRtLoadedExecutable, XlaComputation};

/// A client of the linked XLA.
pub struct XlaRs {
    client: PjRtClient,
}

impl XlaRs {
    /// The CPU.
    ///
    /// # Errors
    /// If XLA refuses.
    pub fn cpu() -> Result<Self, Error> {
        Ok(XlaRs {
            client: PjRtClient::cpu().map_err(refused)?,
        })
    }

    /// A CUDA GPU, of whose memory XLA takes this share when it needs it.
    ///
    /// # Errors
    /// If there is none, or XLA refuses.
    pub fn gpu(memory_fraction: f64) -> Result<Self, Error> {
        Ok(XlaRs {
            client: PjRtClient::gpu(memory_fraction, false).map_err(refused)?,
        })
    }

    /// A TPU of this machine.
    ///
    /// # Errors
    /// If there is none, or XLA refuses.
    pub fn tpu() -> Result<Self, Error> {
        Ok(XlaRs {
            client: PjRtClient::tpu(32).map_err(refused)?,
        })
    }

    /// Name of the platform.
    pub fn platform_name(&self) -> String {
        self.client.platform_name()
    }

    /// Compiles a serialised `HloModuleProto`, such as `simclr export --format hlo` writes.
    ///
    /// # Errors
    /// If XLA refuses.
    pub fn compile(&self, module: &[u8]) -> Result<XlaRsProgram, Error> {
        let proto = HloModuleProto::parse_proto(module, true).map_err(refused)?;
        let computation = XlaComputation::from_proto(&proto);
        let executable = self.client.compile(&computation).map_err(refused)?;
        Ok(XlaRsProgram { executable })
    }
}

impl RunModule for XlaRs {
    fn run_module(&self, module: &Module, arguments: &[Literal]) -> Result<Vec<Literal>, Error> {
        self.compile(&module.to_proto_bytes())?.run(arguments)
    }
}

/// A compiled module.
pub struct XlaRsProgram {
    executable: PjRtLoadedExecutable,
}

impl XlaRsProgram {
    /// Runs it on host arrays and waits.
    ///
    /// # Errors
    /// If the arguments do not fit, or XLA refuses.
    pub fn run(&self, arguments: &[Literal]) -> Result<Vec<Literal>, Error> {
        let arguments = arguments
            .iter()
            .map(to_xla)
            .collect::<Result<Vec<_>, _>>()?;
        let buffers = self.executable.execute(&arguments).map_err(refused)?;
        let mut results = Vec::new();
        for buffer in buffers.iter().flatten() {
            let mut literal = buffer.to_literal_sync().map_err(refused)?;
            // One tuple of all results, or each by itself: XLA's versions differ.
            match literal.shape().map_err(refused)? {
                xla::Shape::Tuple(_) => {
                    for part in literal.decompose_tuple().map_err(refused)? {
                        results.push(from_xla(&part)?);
                    }
                }
                _ => results.push(from_xla(&literal)?),
            }
        }
        Ok(results)
    }
}

fn refused(error: xla::Error) -> Error {
    Error::XlaRs {
        message: error.to_string(),
    }
}

const TYPES: [(DType, ElementType); 9] = [
    (DType::Pred, ElementType::Pred),
    (DType::S32, ElementType::S32),
    (DType::S64, ElementType::S64),
    (DType::U8, ElementType::U8),
    (DType::U32, ElementType::U32),
    (DType::U64, ElementType::U64),
    (DType::Bf16, ElementType::Bf16),
    (DType::F32, ElementType::F32),
    (DType::F64, ElementType::F64),
];

fn to_xla(literal: &Literal) -> Result<xla::Literal, Error> {
    let shape = literal.shape();
    let (_, ty) = TYPES
        .into_iter()
        .find(|(dtype, _)| *dtype == shape.dtype)
        .ok_or_else(|| unknown(shape.dtype))?;
    let dims: Vec<usize> = shape.dims.iter().map(|&dim| dim as usize).collect();
    xla::Literal::create_from_shape_and_untyped_data(ty, &dims, literal.bytes()).map_err(refused)
}

fn from_xla(literal: &xla::Literal) -> Result<Literal, Error> {
    let ty = literal.ty().map_err(refused)?;
    let (dtype, _) = TYPES
        .into_iter()
        .find(|(_, known)| *known == ty)
        .ok_or_else(|| unknown(ty))?;
    let dims = literal.array_shape().map_err(refused)?.dims().to_vec();
    let mut bytes = vec![0; literal.size_bytes()];
    literal.copy_untyped_to(&mut bytes).map_err(refused)?;
    Literal::from_bytes(Shape::new(dtype, dims), bytes).ok_or_else(|| unknown(ty))
}

fn unknown(what: impl std::fmt::Debug) -> Error {
    Error::XlaRs {
        message: format!("{what:?} has another size or meaning there"),
    }
}
