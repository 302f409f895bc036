//! Why packets are counted: the numbers of the kernel's counters and events, and their names.

/// Why a packet was counted.
#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Belongs to a session of ours: given to it.
    Session,
    /// A new connection: given to the zone's listener.
    Intercepted,
    /// A new connection over our TIME_WAIT socket.
    Reconnected,
    /// The answer to a SYN cookie of the listener.
    CookieAnswer,
    /// An ICMP message about the size of one of our packets: delivered to us.
    PathMtu,
    /// A new connection that a bypass rule lets pass.
    Bypassed,
    /// A new connection that the blacklist drops, in TC.
    BlacklistDropped,
    /// A new connection that the blacklist drops, in XDP.
    BlacklistDroppedEarly,
    /// A new connection that the blacklist answers with a RST.
    BlacklistReset,
    /// A new connection of a banned client: dropped, in TC.
    BanDropped,
    /// A new connection of a banned client: dropped, in XDP.
    BanDroppedEarly,
    /// A new connection of a banned client: answered with a RST.
    BanReset,
    /// A new connection while the proxy was down: dropped.
    ProxyDownBlocked,
    /// A new connection while the proxy was down: passed.
    ProxyDownPassed,
    /// A new connection on an interface that is only checked: passed.
    Checked,
    /// No session of ours and no new connection, such as a flow older than mailguard: passed.
    OlderFlow,
    /// Belongs to a local socket that isn't ours: passed.
    OtherSocket,
    /// A fragment with port 25 and without a session: dropped.
    FragmentDropped,
    /// A fragment that cuts the headers before the TCP header's end: dropped.
    TinyFragmentDropped,
    /// A TCP fragment that would overwrite the TCP header: dropped.
    OverlayFragmentDropped,
    /// More IPv6 extension headers than anybody needs: dropped.
    HeaderChainDropped,
    /// The kernel refused to give the packet to the socket: dropped.
    AssignFailed,
    /// More VLAN tags of VID 0 than anybody needs: dropped.
    TagStackDropped,
    /// A new connection of a client that may not send from its zone: dropped.
    NotAllowedDropped,
    /// A new connection of a client that may not send from its zone: answered with a RST.
    NotAllowedReset,
}

impl Reason {
    /// All of them, in order of their numbers.
    pub const ALL: [Reason; 25] = [
        Reason::Session,
        Reason::Intercepted,
        Reason::Reconnected,
        Reason::CookieAnswer,
        Reason::PathMtu,
        Reason::Bypassed,
        Reason::BlacklistDropped,
        Reason::BlacklistDroppedEarly,
        Reason::BlacklistReset,
        Reason::BanDropped,
        Reason::BanDroppedEarly,
        Reason::BanReset,
        Reason::ProxyDownBlocked,
        Reason::ProxyDownPassed,
        Reason::Checked,
        Reason::OlderFlow,
        Reason::OtherSocket,
        Reason::FragmentDropped,
        Reason::TinyFragmentDropped,
        Reason::OverlayFragmentDropped,
        Reason::HeaderChainDropped,
        Reason::AssignFailed,
        Reason::TagStackDropped,
        Reason::NotAllowedDropped,
        Reason::NotAllowedReset,
    ];

    /// The name that `mailguard status` and the metrics use.
    pub const fn name(self) -> &'static str {
        match self {
            Reason::Session => "session",
            Reason::Intercepted => "intercepted",
            Reason::Reconnected => "reconnected",
            Reason::CookieAnswer => "cookie-answer",
            Reason::PathMtu => "path-mtu",
            Reason::Bypassed => "bypassed",
            Reason::BlacklistDropped => "blacklist-dropped",
            Reason::BlacklistDroppedEarly => "blacklist-dropped-xdp",
            Reason::BlacklistReset => "blacklist-reset",
            Reason::BanDropped => "ban-dropped",
            Reason::BanDroppedEarly => "ban-dropped-xdp",
            Reason::BanReset => "ban-reset",
            Reason::ProxyDownBlocked => "proxy-down-blocked",
            Reason::ProxyDownPassed => "proxy-down-passed",
            Reason::Checked => "checked",
            Reason::OlderFlow => "older-flow",
            Reason::OtherSocket => "other-socket",
            Reason::FragmentDropped => "fragment-dropped",
            Reason::TinyFragmentDropped => "tiny-fragment-dropped",
            Reason::OverlayFragmentDropped => "overlay-fragment-dropped",
            Reason::HeaderChainDropped => "header-chain-dropped",
            Reason::AssignFailed => "assign-failed",
            Reason::TagStackDropped => "tag-stack-dropped",
            Reason::NotAllowedDropped => "not-allowed-dropped",
            Reason::NotAllowedReset => "not-allowed-reset",
        }
    }

    /// Whether an administrator should read of it in the log, besides the counter.
    pub const fn is_event(self) -> bool {
        matches!(
            self,
            Reason::BanDropped
                | Reason::BanDroppedEarly
                | Reason::BanReset
                | Reason::NotAllowedDropped
                | Reason::NotAllowedReset
                | Reason::ProxyDownBlocked
                | Reason::ProxyDownPassed
                | Reason::FragmentDropped
                | Reason::AssignFailed
        )
    }
}
