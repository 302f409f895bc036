//! Writes the manual pages and the shells' completions of the package, from the command line's own definition
//! and from the example configuration: `manual FOLDER`.
//!
//! An example, for nothing of it belongs into the program that is installed.

use std::env;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use anyhow::{Context, Result};
use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

/// Administrators' commands (man-pages(7)).
const COMMANDS: &str = "8";
/// File formats.
const FORMATS: &str = "5";

fn main() -> Result<()> {
    let folder = env::args_os().nth(1).context("manual FOLDER")?;
    let folder = Path::new(&folder);
    let command = mailguard::cli::command();
    let pages = folder.join("man/man8");
    fs::create_dir_all(&pages)?;
    page(command.clone().version(env!("CARGO_PKG_VERSION")), &pages)?;
    let formats = folder.join("man/man5");
    fs::create_dir_all(&formats)?;
    configuration(&mut File::create(formats.join("mailguard.toml.5"))?)?;
    let completions = folder.join("completions");
    fs::create_dir_all(&completions)?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut command.clone(), "mailguard", &completions)?;
    }
    Ok(())
}

/// A page for `command`, called by its whole name, and one for each of its subcommands.
fn page(command: Command, folder: &Path) -> io::Result<()> {
    let name = command.get_name().to_owned();
    // The commands below speak of themselves as what is typed, and their pages are called by it.
    let below = command.get_subcommands().filter(|below| !below.is_hide_set() && below.get_name() != "help");
    for below in below {
        let named = format!("{name}-{}", below.get_name());
        let typed = named.replace('-', " ");
        page(below.clone().name(named.clone()).display_name(named).bin_name(typed), folder)?;
    }
    let mut file = File::create(folder.join(format!("{name}.{COMMANDS}")))?;
    Man::new(command).title(name.to_uppercase()).section(COMMANDS).render(&mut file)
}

/// The example configuration, which explains every option, as a page.
fn configuration(to: &mut impl Write) -> io::Result<()> {
    let mut page = Roff::new();
    page.control("TH", ["MAILGUARD.TOML", FORMATS]);
    page.control("SH", ["NAME"]);
    page.text([roman("mailguard.toml - configuration of mailguard(8)")]);
    page.control("SH", ["DESCRIPTION"]);
    page.text([
        roman("Below stands every option with its default and its meaning. "),
        bold("mailguard check"),
        roman(" names every error of a file with its line, and what of it isn't active in this version."),
    ]);
    page.control("SH", ["OPTIONS"]);
    page.control("nf", []);
    for line in include_str!("../mailguard.toml").lines() {
        page.text([roman(line)]);
    }
    page.control("fi", []);
    page.control("SH", ["SEE ALSO"]);
    page.text([bold("mailguard"), roman("(8)")]);
    page.to_writer(to)
}
