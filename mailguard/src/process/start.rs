//! What `run` starts with: the configuration file, or, where that is missing or doesn't check, the version
//! that was in force last. A firewall whose transparent zones stand open after a boot because of a slip in a
//! file would be worse.
//!
//! A file that checks and can't be used on this machine is no slip in the file: `run` ends with that, as
//! ever.

use std::path::Path;

use mailguard_core::config::Config;
use tracing::error;

use super::RunError;
use crate::config::{self, LastApplied, Refused, Source, StandIn};

/// What `run` starts with.
#[derive(Debug)]
pub(super) struct Start {
    pub(super) source: Source,
    pub(super) config: Config,
    /// Why it isn't what the file says.
    pub(super) stand_in: Option<StandIn>,
}

/// Reads the file. `validate` says what the parts that use a configuration find wrong with one that is
/// written rightly.
pub(super) fn read(
    path: &Path,
    validate: impl Fn(&Source, &Config) -> Result<Vec<String>, RunError>,
) -> Result<(Source, Config), RunError> {
    parse_and_validate(config::load(path).map_err(Refused::from)?, validate)
}

fn parse_and_validate(
    source: Source,
    validate: impl Fn(&Source, &Config) -> Result<Vec<String>, RunError>,
) -> Result<(Source, Config), RunError> {
    let config = config::parse_and_validate(&source).map_err(Refused::from)?;
    match validate(&source, &config)? {
        problems if problems.is_empty() => Ok((source, config)),
        problems => Err(Refused::from(problems).into()),
    }
}

/// Reads the file, or what `kept` has of it where it is refused.
pub(super) fn choose(
    path: &Path,
    kept: &LastApplied,
    validate: impl Fn(&Source, &Config) -> Result<Vec<String>, RunError>,
) -> Result<Start, RunError> {
    let refused = match read(path, &validate) {
        Ok((source, config)) => return Ok(Start { source, config, stand_in: None }),
        Err(RunError::Config(refused)) => refused,
        Err(error) => return Err(error),
    };
    let version = match kept.load(path) {
        Ok(None) => return Err(refused.into()),
        Ok(Some(version)) => version,
        Err(error) => {
            return Err(refused
                .and(format!("the version that was applied last can't be used instead: {error}"))
                .into());
        }
    };
    let stand_in = refused.clone().stand_in(&version);
    match parse_and_validate(version.source, validate) {
        // Whoever wrote the file since wants something else, and must hear that it doesn't come about.
        Ok((_, config)) if !config.enabled => Err(refused
            .and("the version that was applied last isn't used instead: it says enabled = false")
            .into()),
        Ok((source, config)) => Ok(Start { source, config, stand_in: Some(stand_in) }),
        // It may be well the next time.
        Err(error) if error.exit_code().is_none() => Err(error),
        Err(error) => {
            let applied_at = version.applied_at.rfc3339();
            let why = format!("the version that was applied at {applied_at} can't be used instead:\n{error}");
            Err(refused.and(why).into())
        }
    }
}

/// Says in the log what is wrong with the file, and what stands in for it.
pub(super) fn tell(path: &Path, stand_in: &StandIn) {
    let StandIn { errors, count, .. } = stand_in;
    for line in errors {
        error!("{line}");
    }
    if let Some(more) = count.checked_sub(errors.len()).filter(|more| *more > 0) {
        error!("and {more} more errors: mailguard check names them");
    }
    error!("{}", stand_in.problem(path));
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use mailguard_core::config::model::ZoneMode;
    use mailguard_core::mail::UnixTime;
    use tempfile::TempDir;

    use super::*;
    use crate::config::MAX_TOLD_ERRORS;

    const GOOD: &str = "hostname = \"gate.example.org\"\n[[zone]]\nname = \"lan\"\nkind = \"green\"\n\
                        interfaces = [\"eth0\"]\nmode = \"transparent\"\n[bypass]\nfrom_ips = [\"@LIST\"]\n";
    const THEN: UnixTime = UnixTime(1_764_288_000_000_000);

    /// A file that was in force once, with a list in a file of its own.
    struct Scene {
        folder: TempDir,
        kept: LastApplied,
    }

    impl Scene {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let kept = LastApplied::within(folder.path().join("kept"));
            let scene = Self { folder, kept };
            fs::write(scene.list(), "192.0.2.7\n").unwrap();
            scene.write(&scene.good());
            scene
        }

        fn path(&self) -> PathBuf {
            self.folder.path().join("mailguard.toml")
        }

        fn list(&self) -> PathBuf {
            self.folder.path().join("list")
        }

        fn good(&self) -> String {
            GOOD.replace("LIST", &self.list().display().to_string())
        }

        fn write(&self, text: &str) {
            fs::write(self.path(), text).unwrap();
        }

        fn keep(&self) {
            self.kept.keep(&config::load(&self.path()).unwrap(), THEN).unwrap();
        }

        fn choose(&self) -> Result<Start, RunError> {
            choose(&self.path(), &self.kept, |_, _| Ok(Vec::new()))
        }
    }

    #[test]
    fn a_file_that_does_not_check_is_stood_in_for_by_what_was_applied_last() {
        let scene = Scene::new();
        scene.keep();
        assert_eq!(scene.choose().unwrap().stand_in, None);
        let good = scene.good();
        let spoils: [(&str, &dyn Fn(), &str); 5] = [
            (
                "a typo",
                &|| scene.write(&good.replace("\"transparent\"", "\"transparant\"")),
                "mailguard.toml:6: zone[0].mode: ",
            ),
            ("no TOML", &|| scene.write(&good[..40]), "mailguard.toml:3: not TOML"),
            ("no UTF-8", &|| fs::write(scene.path(), [0xff]).unwrap(), "is not UTF-8 in line 1"),
            ("no file", &|| fs::remove_file(scene.path()).unwrap(), "No such file"),
            (
                "a typo in a list",
                &|| {
                    scene.write(&good);
                    fs::write(scene.list(), "192.0.2.7\n192.0.2.x\n").unwrap();
                },
                "list:2: ",
            ),
        ];
        for (what, spoil, expect) in spoils {
            spoil();
            let start = scene.choose().unwrap();
            let stand_in = start.stand_in.expect(what);
            assert_eq!((stand_in.applied_at, stand_in.count, stand_in.errors.len()), (THEN, 1, 1), "{what}");
            assert!(stand_in.errors[0].contains(expect), "{what}: {:?}", stand_in.errors);
            assert_eq!(start.config.zones[0].mode, ZoneMode::Transparent, "{what}");
            assert_eq!(start.config.bypass.from_ips.len(), 1, "{what}: the list as it was");
            assert_eq!(start.source.text, good, "{what}");
        }
    }

    #[test]
    fn without_a_version_that_can_be_used_both_errors_are_told() {
        let scene = Scene::new();
        let fails = |expect: &[&str]| {
            let error = scene.choose().unwrap_err();
            let text = error.to_string();
            assert_eq!(error.exit_code(), Some(super::super::EXIT_CONFIG), "{text}");
            assert!(expect.iter().all(|expect| text.contains(expect)), "{text}");
            text
        };
        let good = scene.good();
        let bad = good.replace("\"transparent\"", "\"transparant\"");
        scene.write(&bad);
        assert!(!fails(&["mailguard.toml:6:", "1 error"]).contains("applied"), "there is none");
        // An option that another version of the program knew.
        scene.write(&format!("tomorrow = true\n{good}"));
        scene.keep();
        scene.write(&bad);
        fails(&["mailguard.toml:6:", "applied at 2025-11-28T00:00:00Z can't be used instead:\n", "tomorrow"]);
        let file = fs::read_dir(scene.folder.path().join("kept")).unwrap().next().unwrap().unwrap();
        fs::write(file.path(), "{").unwrap();
        fails(&["mailguard.toml:6:", "can't be used instead: ", "is damaged"]);
    }

    #[test]
    fn what_the_parts_find_wrong_with_a_file_is_as_bad_and_what_the_machine_lacks_is_not() {
        let scene = Scene::new();
        scene.keep();
        scene.write(&format!("{}# rules that don't compile\n", scene.good()));
        let validate = |source: &Source, _: &Config| match source.text.contains("don't compile") {
            true => Ok(vec!["a.yar:1: a slip\u{1b}\nin a rule".to_owned(); 30]),
            false => Ok(Vec::new()),
        };
        let stand_in = choose(&scene.path(), &scene.kept, validate).unwrap().stand_in.unwrap();
        assert_eq!((stand_in.count, stand_in.errors.len()), (30, MAX_TOLD_ERRORS));
        assert_eq!(stand_in.errors[0], "a.yar:1: a slip  in a rule", "one line");
        scene.write(&format!("{}[smarthost]\npassword = [\"secret\"]\n", scene.good()));
        let stand_in = scene.choose().unwrap().stand_in.unwrap();
        assert!(stand_in.errors.iter().any(|error| error.contains("password")), "{:?}", stand_in.errors);
        assert!(!stand_in.errors.concat().contains("secret"), "{:?}", stand_in.errors);
        scene.write(&format!("{}# rules that don't compile\n", scene.good()));
        let no_user = |_: &Source, _: &Config| Err(RunError::NoUser("mailgard".to_owned()));
        let error = choose(&scene.path(), &scene.kept, no_user).unwrap_err();
        assert!(matches!(error, RunError::NoUser(_)), "{error}");
        // What is found wrong with the version that is kept is told, too.
        let both =
            |source: &Source, _: &Config| Ok(vec![format!("{} octets are too many", source.text.len())]);
        let text = choose(&scene.path(), &scene.kept, both).unwrap_err().to_string();
        assert_eq!(text.matches("octets are too many").count(), 2, "{text}");
    }
}
