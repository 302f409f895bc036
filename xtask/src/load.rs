//! `cargo xtask load IFACE` and `unload IFACE`: the kernel part on one interface, for trying by hand.

/// Options of `load`.
#[derive(clap::Args)]
pub(crate) struct LoadArguments {
    /// The interface
    interface: String,
}

/// Options of `unload`.
#[derive(clap::Args)]
pub(crate) struct UnloadArguments {
    /// The interface
    interface: String,
}

/// Attaches.
pub(crate) fn load(arguments: &LoadArguments) -> anyhow::Result<()> {
    anyhow::bail!("cannot load on {}", arguments.interface)
}

/// Detaches.
pub(crate) fn unload(arguments: &UnloadArguments) -> anyhow::Result<()> {
    anyhow::bail!("cannot unload on {}", arguments.interface)
}
