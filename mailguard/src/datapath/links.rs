//! Hears from the kernel when an interface comes, goes or changes.

use std::io;
use std::thread;
use std::time::Duration;

use futures::StreamExt;
use rtnetlink::MulticastGroup;

/// Changes that come within this time are one: making an interface is several.
const SETTLE_TIME: Duration = Duration::from_millis(20);

/// Calls `changed` after each change of an interface of this network namespace, from a thread of its own, until it
/// returns false.
pub fn watch_links(changed: impl Fn() -> bool + Send + 'static) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let guard = runtime.enter();
    let (connection, _, mut messages) = rtnetlink::new_multicast_connection(&[MulticastGroup::Link])?;
    drop(guard);
    let watch = async move {
        let _connection = tokio::spawn(connection);
        // Whatever comes: this socket hears of nothing else, and an error says that something was missed.
        while messages.next().await.is_some() {
            tokio::time::sleep(SETTLE_TIME).await;
            while messages.try_recv().is_ok() {}
            if !changed() {
                return;
            }
        }
    };
    thread::Builder::new().name("links".to_owned()).spawn(move || runtime.block_on(watch))?;
    Ok(())
}
