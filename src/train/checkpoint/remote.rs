//! Checkpoints in a bucket: objects, of which the manifest comes last and goes first.

use super::{Error, MANIFEST, OnDisk, STATE, folder_name, read, read_manifest, set_aside, step_of};
use crate::data::store;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Writes a checkpoint, then deletes older ones and what was left unfinished. Whatever happens on the way, what was whole stays so.
pub(super) fn save(
    dir: &Path,
    on_disk: &OnDisk,
    state: Vec<u8>,
    manifest: Vec<u8>,
    keep: usize,
    alone: &dyn Fn() -> Result<(), Error>,
) -> Result<PathBuf, Error> {
    let step = on_disk.manifest.step;
    let target = dir.join(folder_name(step));
    if store::is_file(&target.join(MANIFEST))? {
        let same =
            read_manifest(&target).is_ok_and(|found| found == *on_disk) && read(&target).is_ok();
        if same {
            return Ok(target);
        }
        alone()?;
        set_aside(&target)?;
    }
    store::write(&target.join(STATE), state.into())?;
    alone()?;
    store::write(&target.join(MANIFEST), manifest.into())?;
    // It is safe by now, so that a failure is worth a warning, not the run.
    if let Err(error) = prune(dir, step, keep) {
        tracing::warn!("cannot delete old checkpoints: {error}");
    }
    Ok(target)
}

/// All that have a manifest, oldest first.
pub(super) fn list(dir: &Path) -> Result<Vec<(u64, PathBuf)>, Error> {
    let whole = folders(dir)?.into_iter().filter(|(_, files)| files.whole);
    Ok(whole
        .map(|(step, _)| (step, dir.join(folder_name(step))))
        .collect())
}

/// What there is of a checkpoint.
#[derive(Default)]
struct Files {
    whole: bool,
    names: Vec<String>,
}

fn folders(dir: &Path) -> Result<BTreeMap<u64, Files>, Error> {
    let mut found: BTreeMap<u64, Files> = BTreeMap::new();
    for name in store::below(dir)? {
        if let Some((folder, file)) = name.split_once('/')
            && let Some(step) = step_of(folder)
        {
            let files = found.entry(step).or_default();
            files.whole |= file == MANIFEST;
            files.names.push(file.to_owned());
        }
    }
    Ok(found)
}

/// Deletes all but the newest `keep` up to `step` (0: none of them), and those before it without a manifest, which nobody will finish.
fn prune(dir: &Path, step: u64, keep: usize) -> Result<(), Error> {
    let (mut whole, mut doomed): (Vec<_>, Vec<_>) = folders(dir)?
        .into_iter()
        .partition(|(_, files)| files.whole);
    whole.retain(|(found, _)| *found <= step);
    doomed.retain(|(found, _)| *found < step);
    if keep > 0 {
        let surplus = whole.len().saturating_sub(keep);
        doomed.extend(whole.into_iter().take(surplus));
    }
    for (step, files) in doomed {
        let folder = dir.join(folder_name(step));
        store::remove(&folder.join(MANIFEST))?;
        for name in files.names.iter().filter(|name| *name != MANIFEST) {
            store::remove(&folder.join(name))?;
        }
    }
    Ok(())
}

/// Moves a checkpoint; killed on the way, it is there under one name or both.
pub(super) fn rename(from: &Path, to: &Path) -> Result<(), Error> {
    // Damaged ones, too: of those some file may be missing.
    let mut names = store::below(from)?;
    names.sort_by_key(|name| name == MANIFEST);
    for name in &names {
        store::write(&to.join(name), store::read(&from.join(name))?.into())?;
    }
    for name in names.iter().rev() {
        store::remove(&from.join(name))?;
    }
    Ok(())
}
