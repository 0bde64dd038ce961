//! Every input that once did harm, or could, is read again: each must come back with a value or an error.

use std::path::{Path, PathBuf};
use std::{fs, io};

use headrace_attacks::TARGETS;

fn kept(target: &str) -> io::Result<Vec<PathBuf>> {
    let folder = Path::new("kept").join(target);
    let mut files = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    files.sort();
    Ok(files)
}

#[test]
fn every_kept_input_comes_back() -> io::Result<()> {
    for target in TARGETS {
        let files = kept(target.name)?;
        assert!(!files.is_empty(), "keep at least one input for {}", target.name);
        for file in files {
            let data = fs::read(&file)?;
            let outcome = std::panic::catch_unwind(|| (target.run)(&data));
            assert!(outcome.is_ok(), "{} panicked on {}", target.name, file.display());
        }
    }
    Ok(())
}

/// A file that is cut short or has one byte changed is the most common damage of all, so each kept input is also read that way.
#[test]
fn damaged_copies_come_back() -> io::Result<()> {
    for target in TARGETS {
        for file in kept(target.name)? {
            let data = fs::read(&file)?;
            let step = (data.len() / 200).max(1);
            for at in (0..data.len()).step_by(step) {
                let mut changed = data.clone();
                changed[at] ^= 0xff;
                let outcome = std::panic::catch_unwind(|| {
                    (target.run)(&data[..at]);
                    (target.run)(&changed);
                });
                assert!(outcome.is_ok(), "{} panicked on {} damaged at byte {at}", target.name, file.display());
            }
        }
    }
    Ok(())
}

#[test]
fn every_folder_belongs_to_a_target() -> io::Result<()> {
    for entry in fs::read_dir("kept")? {
        let name = entry?.file_name();
        assert!(TARGETS.iter().any(|target| Some(target.name) == name.to_str()), "nothing replays kept/{name:?}");
    }
    Ok(())
}
