//! Whether mailguard runs by what its configuration file says, and what it would start with if that didn't
//! check.
//!
//! One is chosen at a start; from then on each configuration that is put in force is kept for the next one.
//! One that can't be kept, for a disk may be full, is in force all the same, and `status` says so.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tracing::{error, info};

use super::{LastApplied, Refused, Source, StandIn};

/// What is known of the version in force.
pub struct Kept {
    versions: LastApplied,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// It isn't what the file says.
    stand_in: Option<StandIn>,
    /// Why it isn't kept, if it isn't.
    unkept: Option<String>,
}

impl Kept {
    /// Of what is kept in `versions`, and what stands in for the file since the start.
    pub fn new(versions: LastApplied, stand_in: Option<StandIn>) -> Self {
        Self { versions, state: Mutex::new(State { stand_in, unkept: None }) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `source` was put in force, and is what the file says now.
    pub fn adopted(&self, source: &Source) {
        if self.state().stand_in.take().is_some() {
            info!("{} is in force again", source.path.display());
        }
        self.keep(source);
    }

    /// Keeps `source`, which is in force.
    pub fn keep(&self, source: &Source) {
        let unkept =
            self.versions.keep(source, SystemTime::now().into()).err().map(|error| error.to_string());
        if let Some(error) = &unkept {
            error!("{}", problem_of_unkept(error));
        }
        self.state().unkept = unkept;
    }

    /// The file was read again, and this is wrong with it now.
    pub fn refused(&self, refused: &Refused) {
        let mut state = self.state();
        state.stand_in = state.stand_in.take().map(|stand_in| refused.instead(stand_in));
    }

    /// What stands in for the file, if something does.
    pub fn stand_in(&self) -> Option<StandIn> {
        self.state().stand_in.clone()
    }

    /// What is the matter with the configuration file at `path`, and with what would stand in for it, a line
    /// each.
    pub fn problems(&self, path: &Path) -> Vec<String> {
        let state = self.state();
        let stand_in = state.stand_in.as_ref().map(|stand_in| stand_in.problem(path));
        stand_in.into_iter().chain(state.unkept.as_deref().map(problem_of_unkept)).collect()
    }
}

fn problem_of_unkept(error: &str) -> String {
    format!(
        "the configuration in force isn't kept for a start with a file that doesn't check, which would begin with an older version or \
         fail: {error}: mend that, then mailguard reload"
    )
}

#[cfg(test)]
mod tests {
    use std::fs;

    use mailguard_core::mail::UnixTime;

    use super::*;

    #[test]
    fn a_version_that_can_not_be_kept_is_a_problem_until_one_can() {
        let place = tempfile::tempdir().unwrap();
        let (folder, path) = (place.path().join("kept"), Path::new("/etc/m.toml"));
        fs::write(&folder, "a file in the place of the folder").unwrap();
        let kept = Kept::new(LastApplied::within(&folder), None);
        let source = Source::of_text(path, "a = 1\n");
        kept.adopted(&source);
        let problems = kept.problems(path);
        assert!(problems.len() == 1 && problems[0].contains("isn't kept"), "{problems:?}");
        fs::remove_file(&folder).unwrap();
        kept.keep(&source);
        assert_eq!(kept.problems(path), Vec::<String>::new());
        assert!(LastApplied::within(&folder).load(path).unwrap().is_some());
    }

    #[test]
    fn a_stand_in_is_a_problem_until_the_file_is_in_force() {
        let place = tempfile::tempdir().unwrap();
        let path = Path::new("/etc/m.toml");
        let errors = vec!["/etc/m.toml:3: zone.mode: no".to_owned()];
        let stand_in = StandIn { applied_at: UnixTime(1_764_288_000_000_000), errors, count: 3 };
        let kept = Kept::new(LastApplied::within(place.path()), Some(stand_in));
        let source = Source::of_text(path, "a = 1\n");
        kept.keep(&source);
        let expect = "mailguard runs by the configuration that was applied at 2025-11-28T00:00:00Z, not by /etc/m.toml, which can't be \
                      used (3 errors): /etc/m.toml:3: zone.mode: no: mend it (mailguard check), then mailguard reload";
        assert_eq!(kept.problems(path), [expect]);
        kept.refused(&Refused::from(vec!["m.toml:9: another slip".to_owned()]));
        let problems = kept.problems(path);
        assert!(problems[0].contains("used (1 error): m.toml:9: another slip: mend"), "{problems:?}");
        kept.adopted(&source);
        assert_eq!((kept.problems(path), kept.stand_in()), (Vec::new(), None));
        kept.refused(&Refused::from(vec!["m.toml:9: another slip".to_owned()]));
        assert_eq!(kept.stand_in(), None, "what is in force was read from the file");
    }
}
