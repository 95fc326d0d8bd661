//! Names of TPU slices: topologies such as `v5e:4x4`, and the names that people rent, such as `v3-128` or `v5litepod-64`.

use super::Error;

/// A generation of chips. Peaks and bandwidths are those of Google's documentation, per chip.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Generation {
    /// Its name in topologies, such as `v5e`.
    pub name: &'static str,
    /// Its name in what is rented, such as `v5litepod`; none where topologies are rented.
    rented: Option<&'static str>,
    /// Floating-point operations per second in bf16.
    pub peak_flops: f64,
    /// Bytes per second to and from its memory.
    pub bandwidth: f64,
    /// Cores of a chip.
    pub cores: usize,
    /// Devices that a program sees of a chip: its cores, or one where the cores act as one ("megacore").
    pub devices: usize,
    /// Whether rented names count cores (else chips).
    counts_cores: bool,
    /// Dimensions of a topology: 2 or 3.
    dimensions: usize,
    /// Topologies that are rented, smallest first.
    shapes: &'static [&'static str],
}

const PLANE: &[&str] = &[
    "2x2", "4x4", "4x8", "8x8", "8x16", "16x16", "16x32", "32x32",
];
const SPACE: &[&str] = &[
    "2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x16", "8x16x16",
];
const LITE: &[&str] = &["1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16"];

/// Every generation that can be compiled for.
pub const GENERATIONS: &[Generation] = &[
    Generation {
        name: "v2",
        rented: Some("v2"),
        peak_flops: 45e12,
        bandwidth: 700e9,
        cores: 2,
        devices: 2,
        counts_cores: true,
        dimensions: 2,
        shapes: PLANE.split_at(6).0,
    },
    Generation {
        name: "v3",
        rented: Some("v3"),
        peak_flops: 123e12,
        bandwidth: 900e9,
        cores: 2,
        devices: 2,
        counts_cores: true,
        dimensions: 2,
        shapes: PLANE,
    },
    Generation {
        name: "v4",
        rented: Some("v4"),
        peak_flops: 275e12,
        bandwidth: 1228e9,
        cores: 2,
        devices: 1,
        counts_cores: true,
        dimensions: 3,
        shapes: SPACE,
    },
    Generation {
        name: "v5e",
        rented: Some("v5litepod"),
        peak_flops: 197e12,
        bandwidth: 819e9,
        cores: 1,
        devices: 1,
        counts_cores: false,
        dimensions: 2,
        shapes: LITE,
    },
    Generation {
        name: "v5p",
        rented: Some("v5p"),
        peak_flops: 459e12,
        bandwidth: 2765e9,
        cores: 2,
        devices: 1,
        counts_cores: true,
        dimensions: 3,
        shapes: SPACE,
    },
    Generation {
        name: "v6e",
        rented: Some("v6e"),
        peak_flops: 918e12,
        bandwidth: 1640e9,
        cores: 1,
        devices: 1,
        counts_cores: false,
        dimensions: 2,
        shapes: LITE,
    },
    Generation {
        name: "tpu7x",
        rented: None,
        peak_flops: 2307e12,
        bandwidth: 7380e9,
        cores: 2,
        devices: 2,
        counts_cores: true,
        dimensions: 3,
        shapes: SPACE.split_at(8).0,
    },
];

/// A slice: a generation and how its chips are laid out.
#[derive(Debug, Clone, PartialEq)]
pub struct Slice {
    /// The chips.
    pub generation: &'static Generation,
    /// Chips along each dimension.
    pub shape: Vec<usize>,
}

impl Slice {
    /// The slice of a name: `v3:8x8`, or as rented `v3-128`.
    ///
    /// # Errors
    /// If it is no such name, or nobody builds that shape; the error names the nearest that exists.
    pub fn parse(name: &str) -> Result<Self, Error> {
        let wanted = name.trim().to_ascii_lowercase();
        for slice in every() {
            if wanted == slice.topology() || slice.rented().as_deref() == Some(wanted.as_str()) {
                return Ok(slice);
            }
        }
        // Shapes that are not rented but that a compiler takes: multiples of a host's 2×2 chips.
        if let Some(slice) = Self::unlisted(&wanted) {
            return Ok(slice);
        }
        Err(unknown(name, &wanted))
    }

    fn unlisted(name: &str) -> Option<Self> {
        let (generation, shape) = name.split_once(':')?;
        let generation = GENERATIONS.iter().find(|g| g.name == generation)?;
        let shape: Vec<usize> = shape
            .split('x')
            .map(|side| side.parse().ok().filter(|side| (1..=64).contains(side)))
            .collect::<Option<_>>()?;
        let whole_hosts = shape.iter().take(2).all(|side| side % 2 == 0);
        let fits = shape.len() == generation.dimensions && whole_hosts;
        fits.then_some(Slice { generation, shape })
    }

    /// Chips.
    pub fn chips(&self) -> usize {
        self.shape.iter().product()
    }

    /// Devices that a program sees.
    pub fn devices(&self) -> usize {
        self.chips() * self.generation.devices
    }

    /// Its name as a topology, such as `v3:8x8`.
    pub fn topology(&self) -> String {
        let sides: Vec<String> = self.shape.iter().map(usize::to_string).collect();
        format!("{}:{}", self.generation.name, sides.join("x"))
    }

    /// Its name as rented, such as `v3-128`, where it has one.
    pub fn rented(&self) -> Option<String> {
        let generation = self.generation;
        let count = self.chips()
            * if generation.counts_cores {
                generation.cores
            } else {
                1
            };
        let name = generation.rented?;
        generation
            .shapes
            .iter()
            .any(|shape| self.topology().ends_with(&format!(":{shape}")))
            .then(|| format!("{name}-{count}"))
    }

    /// Chips of one host along each dimension. The smaller v5e and v6e slices are one host with all their chips.
    pub fn host(&self) -> Vec<usize> {
        let lite = ["v5e", "v6e"].contains(&self.generation.name);
        if lite && self.chips() <= 8 {
            return vec![self.shape[0], self.shape[1], 1];
        }
        vec![2, 2, 1]
    }

    /// Operations per second of one device in bf16.
    pub fn peak_flops_per_device(&self) -> f64 {
        self.generation.peak_flops / self.generation.devices as f64
    }

    /// Bytes per second between one device and its memory.
    pub fn bandwidth_per_device(&self) -> f64 {
        self.generation.bandwidth / self.generation.devices as f64
    }
}

/// Every slice that is rented.
pub fn every() -> Vec<Slice> {
    let mut slices = Vec::new();
    for generation in GENERATIONS {
        for shape in generation.shapes {
            slices.push(Slice {
                generation,
                shape: shape
                    .split('x')
                    .map(|side| side.parse().unwrap_or(1))
                    .collect(),
            });
        }
    }
    slices
}

fn unknown(found: &str, wanted: &str) -> Error {
    let names = || {
        every().into_iter().flat_map(|slice| {
            let rented = slice.rented();
            std::iter::once(slice.topology()).chain(rented)
        })
    };
    // Within the generation that was named, if one was, the nearest in size; else the most alike name.
    let (head, size) = wanted.split_once([':', '-']).unwrap_or((wanted, ""));
    let of_head: Vec<String> = names()
        .filter(|name| name.split([':', '-']).next() == Some(head))
        .collect();
    let count = |text: &str| -> Option<f64> {
        text.split('x')
            .map(|side| side.parse::<f64>().ok())
            .product()
    };
    let nearest = match count(size) {
        Some(size) if !of_head.is_empty() => {
            let separator = if wanted.contains(':') { ':' } else { '-' };
            of_head
                .iter()
                .filter(|name| name.contains(separator))
                .min_by(|a, b| {
                    let far = |name: &str| {
                        let own = name.split(separator).nth(1).and_then(count);
                        (own.unwrap_or(f64::MAX).ln() - size.max(1.0).ln()).abs()
                    };
                    far(a).total_cmp(&far(b))
                })
                .cloned()
        }
        _ => None,
    };
    let digits = |text: &str| -> String { text.chars().filter(char::is_ascii_digit).collect() };
    let number = digits(head);
    let nearest = nearest.or_else(|| {
        // The smallest slice of the generation whose name is most alike; of another number it is not what was meant.
        let alike = |name: &str| {
            let own = name.split([':', '-']).next().unwrap_or(name);
            strsim::normalized_levenshtein(head, own)
        };
        let own = |name: &str| digits(name.split([':', '-']).next().unwrap_or(name));
        let mut best = None;
        for name in names().filter(|name| number.is_empty() || own(name) == number) {
            let found = alike(&name);
            if best.as_ref().is_none_or(|(most, _)| found > *most) {
                best = Some((found, name));
            }
        }
        best.map(|(_, name)| name)
    });
    let expected = if of_head.is_empty() {
        format!(
            "a topology such as v5e:4x4 or a rented name such as v3-128, of {} (`simclr topologies` lists them)",
            GENERATIONS
                .iter()
                .map(|g| g.name)
                .collect::<Vec<_>>()
                .join(", ")
        )
    } else {
        format!("one of {}, or whole hosts of 2x2 chips", of_head.join(", "))
    };
    Error::UnknownSlice {
        found: found.into(),
        expected,
        nearest,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rented_names_are_topologies() {
        for (name, topology, devices) in [
            ("v2-8", "v2:2x2", 8),
            ("v3-32", "v3:4x4", 32),
            ("v3-128", "v3:8x8", 128),
            ("v4-256", "v4:4x4x8", 128),
            ("v5litepod-1", "v5e:1x1", 1),
            ("v5litepod-64", "v5e:8x8", 64),
            ("v5p-128", "v5p:4x4x4", 64),
            ("v6e-256", "v6e:16x16", 256),
            ("V3:8X8", "v3:8x8", 128),
            ("tpu7x:2x2x1", "tpu7x:2x2x1", 8),
            ("v3:2x8", "v3:2x8", 32),
        ] {
            let slice = Slice::parse(name).unwrap();
            assert_eq!(
                (slice.topology().as_str(), slice.devices()),
                (topology, devices),
                "{name}"
            );
            assert_eq!(Slice::parse(&slice.topology()).unwrap(), slice);
        }
    }

    #[test]
    fn every_rented_name_is_a_power_of_two_and_its_own() {
        let mut names: Vec<String> = every().iter().filter_map(Slice::rented).collect();
        assert!(names.contains(&"v6e-8".to_string()));
        let all = names.len();
        for name in &names {
            let count: usize = name.rsplit('-').next().unwrap().parse().unwrap();
            assert!(count.is_power_of_two(), "{name}");
        }
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all);
    }

    #[test]
    fn what_nobody_builds_is_refused_with_the_nearest() {
        for (name, nearest) in [
            ("v3-100", "v3-128"),
            ("v5e:3x3", "v5e:2x4"),
            ("v5litepod-60", "v5litepod-64"),
            ("v7x", "tpu7x"),
            ("", "v"),
            ("v3:8x8x8", "v3:16x32"),
            ("v3:99999999999999999999x2", "v3"),
        ] {
            let error = Slice::parse(name).unwrap_err().to_string();
            assert!(
                error.contains(&format!("did you mean `{nearest}")),
                "{name}: {error}"
            );
        }
        // Of no generation that is known.
        let error = Slice::parse("v9-3").unwrap_err().to_string();
        assert!(!error.contains("did you mean"), "{error}");
    }
}
