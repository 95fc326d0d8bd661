//! What a new run starts from: initial values, and over them those of another run (reference §8.2).

use super::step::{StateArray, StepModule};
use super::{Error, state, trained};
use crate::config::Loaded;
use crate::hlo::Literal;
use fancy_regex::Regex;
use std::collections::HashSet;

/// Every array but optimizer slots and the step: what a run without `variable_schema` takes over.
const VARIABLES: &str = r"(?!global_step|.*/(?:Momentum|Adam|Adam_1):0)";

/// With which the names of the encoder's arrays begin.
const ENCODER: &str = "base_model/";

/// The array that counts steps.
const STEP: &str = "global_step";

/// Which names of a checkpoint are taken over: a pattern as of Python's `re.match`, that is from the start of the name, with the
/// trailing `:0` of the original's names.
pub struct Schema(Regex);

impl Schema {
    /// # Errors
    /// The reason why it is no pattern.
    pub fn new(pattern: &str) -> Result<Self, String> {
        let compile = |text: &str| Regex::new(text).map_err(|error| error.to_string());
        // By itself first: what stands around it would close a parenthesis that it leaves open.
        compile(pattern)?;
        compile(&format!(r"\A(?:{pattern})")).map(Schema)
    }

    /// Whether an array of this name is taken over. The step never is: it begins at 0 (reference §8.2).
    ///
    /// # Errors
    /// A pattern whose matching explodes.
    pub fn takes(&self, name: &str) -> Result<bool, String> {
        if name == STEP {
            return Ok(false);
        }
        self.0
            .is_match(&format!("{name}:0"))
            .map_err(|error| format!("at {name}: {error}"))
    }
}

/// The state that a new run begins with. Without `checkpoint`: initial values. With it: every array that `variable_schema` takes has
/// the checkpoint's value, in either train mode; with `zero_init_logits_layer` the supervised head is zero then.
///
/// # Errors
/// A pattern that does not parse; a checkpoint that cannot be opened, or that lacks an array or has it in another shape.
pub(super) fn values(loaded: &Loaded, module: &StepModule) -> Result<Vec<Literal>, Error> {
    let config = &loaded.config;
    let mut values = state::initial(&module.state, &module.variables, config.runtime.seed);
    let pattern = config.variable_schema.as_deref().unwrap_or(VARIABLES);
    let bad = |reason: String| {
        let expected = format!(
            "a pattern as of Python's re.match, such as \"(?!global_step|(?:.*/|^)Momentum|head)\" ({reason})"
        );
        Error::Config(loaded.bad("variable_schema", expected))
    };
    let schema = Schema::new(pattern).map_err(bad)?;
    let Some(path) = &config.checkpoint else {
        if config.zero_init_logits_layer {
            let expected = "false without checkpoint, whose head it sets to zero";
            return Err(loaded.bad("zero_init_logits_layer", expected).into());
        }
        return Ok(values);
    };
    let from = trained::open(path)?;
    let mut wanted = HashSet::new();
    for array in &module.state {
        if schema.takes(&array.name).map_err(bad)? {
            wanted.insert(array.name.as_str());
        }
    }
    if !wanted.iter().any(|name| trained::is_variable(name)) {
        let expected = "a pattern that takes some variable of this network, such as base_model/conv2d/kernel:0";
        return Err(loaded.bad("variable_schema", expected).into());
    }
    let names = module.state.iter().map(|array| array.name.as_str());
    let encoder: Vec<&str> = names
        .filter(|name| name.starts_with(ENCODER) && trained::is_variable(name))
        .collect();
    let left = encoder
        .iter()
        .filter(|name| !wanted.contains(**name))
        .count();
    if left > 0 {
        let encoder = encoder.len();
        tracing::warn!(
            "`variable_schema` leaves {left} of the encoder's {encoder} variables at initial values, whatever {} has",
            path.display()
        );
    }
    let found = from.values_for(&module.state, |name| wanted.contains(name), loaded)?;
    let mut taken = 0;
    for (value, found) in values.iter_mut().zip(found) {
        if let Some(found) = found {
            *value = found;
            taken += 1;
        }
    }
    tracing::info!(
        "took {taken} of {} arrays from {}",
        module.state.len(),
        from.checkpoint.display()
    );
    if config.zero_init_logits_layer {
        for (value, array) in values.iter_mut().zip(&module.state) {
            if in_head(array) {
                *value = Literal::zeros(array.shape.clone());
            }
        }
    }
    Ok(values)
}

/// Whether an array is a variable of the supervised head.
fn in_head(array: &StateArray) -> bool {
    array.name.starts_with("head_supervised")
        && (array.name.ends_with("/kernel") || array.name.ends_with("/bias"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 8] = [
        "base_model/conv2d/kernel",
        "base_model/conv2d/kernel/Momentum",
        "base_model/batch_normalization_3/moving_mean",
        "head_contrastive/nl_0/dense/kernel",
        "head_contrastive/nl_0/dense/kernel/Momentum",
        "head_supervised/linear_layer/dense/bias",
        "head_supervised/linear_layer/dense/bias/Adam_1",
        "global_step",
    ];

    fn taken(pattern: &str) -> Vec<usize> {
        let schema = Schema::new(pattern).expect("a pattern");
        (0..NAMES.len())
            .filter(|&i| schema.takes(NAMES[i]).expect("a match or none"))
            .collect()
    }

    /// What Python's `re.match(pattern, name + ":0")` says of these names.
    #[test]
    fn schemas_are_those_of_python() {
        assert_eq!(taken("(?!global_step)"), [0, 1, 2, 3, 4, 5, 6]);
        assert_eq!(taken("(?!global_step|(?:.*/|^)Momentum|head)"), [0, 2]);
        assert_eq!(
            taken("(?!global_step|(?:.*/|^)Momentum|head_supervised)"),
            [0, 2, 3]
        );
        assert_eq!(
            taken("(?!global_step|(?:.*/|^)LARSOptimizer|head)"),
            [0, 1, 2]
        );
        assert_eq!(taken("base_model|head_con"), [0, 1, 2, 3, 4]);
        assert_eq!(taken("conv2d"), Vec::<usize>::new(), "from the start");
        assert_eq!(taken(r".*kernel:0$"), [0, 3], "to the end of the full name");
        assert_eq!(taken(""), [0, 1, 2, 3, 4, 5, 6], "all but the step");
        assert_eq!(taken("global_step"), Vec::<usize>::new());
        assert_eq!(taken(VARIABLES), [0, 2, 3, 5]);
    }

    #[test]
    fn a_pattern_that_explodes_is_an_error() {
        let schema = Schema::new(r"(?:a(?=a*)|a)*b").expect("a pattern");
        let name = "a".repeat(64);
        assert!(schema.takes(&name).is_err());
    }

    /// The original's default is no pattern.
    #[test]
    fn what_is_no_pattern_is_refused() {
        for pattern in ["?!global_step", "(", "[a", "head)|(base"] {
            assert!(Schema::new(pattern).is_err(), "{pattern}");
        }
    }
}
