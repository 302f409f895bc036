//! The sets of file name extensions that `files.extensions` may name. Fixed tables, so that what is blocked
//! changes with a version of this program and never by itself.
//!
//! Three are what others publish: Gmail's help ("File types blocked in Gmail"), Outlook's support page
//! ("Blocked attachments in Outlook", with the types that Exchange adds for Outlook on the web) and the
//! default of Microsoft 365's filter of common attachments. The others are by kind.

use std::fmt;

/// Some extensions under one name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileSet {
    /// What at least two of Gmail, Outlook and Microsoft 365 block.
    Common,
    /// What Gmail blocks.
    Gmail,
    /// What Outlook blocks.
    Outlook,
    /// Programs of DOS and Windows.
    Programs,
    /// Programs in the form of text, and what runs them.
    Scripts,
    /// Images of disks, which are opened as if they were folders.
    DiskImages,
    /// Office documents whose name says that they may hold macros.
    Macros,
    /// Files that hold files.
    Archives,
}

impl FileSet {
    /// All of them, in the order in which they are listed.
    pub const ALL: [FileSet; 8] = [
        FileSet::Common,
        FileSet::Gmail,
        FileSet::Outlook,
        FileSet::Programs,
        FileSet::Scripts,
        FileSet::DiskImages,
        FileSet::Macros,
        FileSet::Archives,
    ];

    /// As the configuration names it, '@' included.
    pub const fn name(self) -> &'static str {
        match self {
            FileSet::Common => "@common",
            FileSet::Gmail => "@gmail",
            FileSet::Outlook => "@outlook",
            FileSet::Programs => "@programs",
            FileSet::Scripts => "@scripts",
            FileSet::DiskImages => "@disk-images",
            FileSet::Macros => "@macros",
            FileSet::Archives => "@archives",
        }
    }

    /// What is in it, in one line.
    pub const fn about(self) -> &'static str {
        match self {
            FileSet::Common => "what at least two of Gmail, Outlook and Microsoft 365 block",
            FileSet::Gmail => "what Gmail blocks",
            FileSet::Outlook => "what Outlook blocks",
            FileSet::Programs => "programs of DOS and Windows",
            FileSet::Scripts => "programs in the form of text",
            FileSet::DiskImages => "images of disks",
            FileSet::Macros => "office documents that may hold macros by their name",
            FileSet::Archives => "files that hold files",
        }
    }

    /// The set of this name, '@' included, in any case.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|set| set.name().eq_ignore_ascii_case(name))
    }

    /// Its extensions, lower case, without dot, in order of the alphabet.
    pub fn extensions(self) -> Vec<&'static str> {
        match self {
            FileSet::Common => common(),
            FileSet::Gmail => GMAIL.to_vec(),
            FileSet::Outlook => OUTLOOK.to_vec(),
            FileSet::Programs => PROGRAMS.to_vec(),
            FileSet::Scripts => SCRIPTS.to_vec(),
            FileSet::DiskImages => DISK_IMAGES.to_vec(),
            FileSet::Macros => MACROS.to_vec(),
            FileSet::Archives => ARCHIVES.to_vec(),
        }
    }
}

impl fmt::Display for FileSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

fn common() -> Vec<&'static str> {
    const PUBLISHED: [&[&str]; 3] = [GMAIL, OUTLOOK, MICROSOFT_365];
    let by = |extension: &str| PUBLISHED.iter().filter(|list| list.contains(&extension)).count();
    let mut found: Vec<&str> =
        PUBLISHED.concat().into_iter().filter(|extension| by(extension) >= 2).collect();
    found.sort_unstable();
    found.dedup();
    found
}

const GMAIL: &[&str] = &[
    "ade",
    "adp",
    "apk",
    "appx",
    "appxbundle",
    "bat",
    "cab",
    "chm",
    "cmd",
    "com",
    "cpl",
    "diagcab",
    "diagcfg",
    "diagpkg",
    "dll",
    "dmg",
    "ex",
    "ex_",
    "exe",
    "hta",
    "img",
    "ins",
    "iso",
    "isp",
    "jar",
    "jnlp",
    "js",
    "jse",
    "lib",
    "lnk",
    "mde",
    "mjs",
    "msc",
    "msi",
    "msix",
    "msixbundle",
    "msp",
    "mst",
    "nsh",
    "pif",
    "ps1",
    "scr",
    "sct",
    "shb",
    "sys",
    "vb",
    "vbe",
    "vbs",
    "vhd",
    "vxd",
    "wsc",
    "wsf",
    "wsh",
    "xll",
];

const OUTLOOK: &[&str] = &[
    "ade",
    "adp",
    "apk",
    "app",
    "appcontent-ms",
    "application",
    "appref-ms",
    "appx",
    "asp",
    "aspx",
    "asx",
    "bas",
    "bat",
    "bgi",
    "cab",
    "cdxml",
    "cer",
    "chm",
    "cmd",
    "cnt",
    "com",
    "cpl",
    "crt",
    "csh",
    "der",
    "diagcab",
    "exe",
    "fxp",
    "gadget",
    "grp",
    "hlp",
    "hpj",
    "hta",
    "htc",
    "inf",
    "ins",
    "iso",
    "isp",
    "its",
    "jar",
    "jnlp",
    "js",
    "jse",
    "ksh",
    "library-ms",
    "lnk",
    "mad",
    "maf",
    "mag",
    "mam",
    "maq",
    "mar",
    "mas",
    "mat",
    "mau",
    "mav",
    "maw",
    "mcf",
    "mda",
    "mdb",
    "mde",
    "mdt",
    "mdw",
    "mdz",
    "msc",
    "msh",
    "msh1",
    "msh1xml",
    "msh2",
    "msh2xml",
    "mshxml",
    "msi",
    "msp",
    "mst",
    "msu",
    "ops",
    "osd",
    "pcd",
    "pif",
    "pl",
    "plg",
    "prf",
    "prg",
    "printerexport",
    "ps1",
    "ps1xml",
    "ps2",
    "ps2xml",
    "psc1",
    "psc2",
    "psd1",
    "psdm1",
    "pssc",
    "pst",
    "py",
    "pyc",
    "pyo",
    "pyw",
    "pyz",
    "pyzw",
    "reg",
    "scf",
    "scr",
    "sct",
    "search-ms",
    "settingcontent-ms",
    "shb",
    "shs",
    "theme",
    "tmp",
    "udl",
    "url",
    "vb",
    "vbe",
    "vbp",
    "vbs",
    "vhd",
    "vhdx",
    "vsmacros",
    "vsw",
    "webpnp",
    "website",
    "ws",
    "wsb",
    "wsc",
    "wsf",
    "wsh",
    "xbap",
    "xll",
    "xnk",
];

const MICROSOFT_365: &[&str] = &[
    "ace", "ani", "apk", "app", "appx", "arj", "bat", "cab", "cmd", "com", "deb", "dex", "dll", "docm",
    "elf", "exe", "hta", "img", "iso", "jar", "jnlp", "kext", "lha", "lib", "library", "lnk", "lzh", "macho",
    "msc", "msi", "msix", "msp", "mst", "pif", "ppa", "ppam", "reg", "rev", "scf", "scr", "sct", "sys",
    "uif", "vb", "vbe", "vbs", "vxd", "wsc", "wsf", "wsh", "xll", "xz", "z",
];

const PROGRAMS: &[&str] = &["bat", "cmd", "com", "dll", "exe", "pif", "scr", "vbs"];

const SCRIPTS: &[&str] = &[
    "applescript",
    "bas",
    "bash",
    "bat",
    "cdxml",
    "cmd",
    "command",
    "csh",
    "hta",
    "js",
    "jse",
    "ksh",
    "lua",
    "mjs",
    "msh",
    "msh1",
    "msh1xml",
    "msh2",
    "msh2xml",
    "mshxml",
    "nsh",
    "php",
    "pl",
    "ps1",
    "ps1xml",
    "ps2",
    "ps2xml",
    "psc1",
    "psc2",
    "psd1",
    "psdm1",
    "psm1",
    "pssc",
    "py",
    "pyc",
    "pyo",
    "pyw",
    "pyz",
    "pyzw",
    "rb",
    "scpt",
    "sct",
    "sh",
    "tcl",
    "vb",
    "vbe",
    "vbs",
    "ws",
    "wsc",
    "wsf",
    "wsh",
    "zsh",
];

const DISK_IMAGES: &[&str] = &[
    "avhd",
    "avhdx",
    "cdr",
    "daa",
    "dmg",
    "esd",
    "ima",
    "img",
    "iso",
    "isz",
    "mds",
    "nrg",
    "qcow",
    "qcow2",
    "sparseimage",
    "swm",
    "toast",
    "udf",
    "uif",
    "vdi",
    "vhd",
    "vhdx",
    "vmdk",
    "wim",
];

const MACROS: &[&str] = &[
    "docm", "dotm", "potm", "ppa", "ppam", "ppsm", "pptm", "sldm", "vsdm", "vssm", "vstm", "wll", "xla",
    "xlam", "xll", "xlm", "xlsb", "xlsm", "xltm",
];

const ARCHIVES: &[&str] = &[
    "7z", "ace", "alz", "ar", "arc", "arj", "bz", "bz2", "cab", "cpio", "deb", "ear", "egg", "gz", "hqx",
    "jar", "lha", "lz", "lz4", "lzh", "lzma", "lzo", "rar", "rev", "rpm", "sit", "sitx", "tar", "taz", "tbz",
    "tbz2", "tgz", "tlz", "txz", "tzst", "war", "xar", "xz", "z", "zip", "zipx", "zoo", "zst",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_in_order_and_lower_case() {
        let tables: Vec<(FileSet, Vec<&str>)> =
            FileSet::ALL.into_iter().map(|set| (set, set.extensions())).collect();
        for (set, extensions) in tables {
            assert!(!extensions.is_empty(), "{set}");
            assert!(extensions.is_sorted_by(|a, b| a < b), "{set}: {extensions:?}");
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
            assert!(extensions.iter().all(|extension| extension.chars().all(plain)), "{set}");
            assert_eq!(FileSet::named(&set.name().to_uppercase()), Some(set));
        }
        assert!(MICROSOFT_365.is_sorted());
        assert_eq!(FileSet::named("common"), None);
    }

    #[test]
    fn what_two_of_three_block_is_common() {
        let common = FileSet::Common.extensions();
        let expect = [
            "ade", "adp", "apk", "app", "appx", "bat", "cab", "chm", "cmd", "com", "cpl", "diagcab", "dll",
            "exe", "hta", "img", "ins", "iso", "isp", "jar", "jnlp", "js", "jse", "lib", "lnk", "mde", "msc",
            "msi", "msix", "msp", "mst", "pif", "ps1", "reg", "scf", "scr", "sct", "shb", "sys", "vb", "vbe",
            "vbs", "vhd", "vxd", "wsc", "wsf", "wsh", "xll",
        ];
        assert_eq!(common, expect);
        // What was blocked before there were sets is blocked still.
        assert!(PROGRAMS.iter().all(|program| common.contains(program)));
    }
}
