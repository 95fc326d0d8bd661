//! From an error to an exit code.

use crate::error::Class;
use crate::{cluster, config, data, engine, interop, model, pjrt, report, train};

/// The exit code of the first error in the chain that has a class; 1 if none has.
pub(super) fn code(error: &anyhow::Error) -> u8 {
    error
        .chain()
        .find_map(class)
        .unwrap_or(Class::Failed)
        .exit_code()
}

/// Every error type that the library gives to the command line.
fn class(error: &(dyn std::error::Error + 'static)) -> Option<Class> {
    macro_rules! classes {
        ($($type:ty),* $(,)?) => {
            $(if let Some(error) = error.downcast_ref::<$type>() {
                return Some(error.class());
            })*
        };
    }
    classes!(
        super::isolated::Error,
        super::ui::Unwritten,
        cluster::Error,
        train::Error,
        train::step::Error,
        train::checkpoint::Error,
        train::run_dir::Error,
        train::trained::Error,
        config::Error,
        data::Error,
        data::pictures::Error,
        report::arrays::Error,
        engine::Error,
        interop::Error,
        model::Error,
        pjrt::Error,
        report::Error,
        crate::hlo::Error,
    );
    None
}

/// Whether the reader of our output went away, which is its right.
pub(super) fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|cause| cause.kind() == std::io::ErrorKind::BrokenPipe)
}
