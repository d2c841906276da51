//! The phases of a request exist as data, so that plans, rules, logs and the reactor protocol all
//! speak of the same sixteen stations with the same numbers and names.
//!
//! Nothing is run here: the loop that drives a plan is `engine`'s, and which host function may be
//! called in which phase is `phase/rules.rs`'s.

pub mod rules;

use std::fmt;

/// One station of a request's life. The discriminant is the number in `docs/reactor.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Phase {
    /// Once, when a generation is built.
    Init = 0,
    /// An instance starts in a worker.
    InitWorker = 1,
    /// An instance leaves a worker.
    ExitWorker = 2,
    /// The first message of a TLS handshake has been read.
    ClientHello = 3,
    /// The certificate of a TLS handshake is to be chosen.
    Certificate = 4,
    /// Before the route is found.
    ServerRewrite = 5,
    /// A variable of the route is computed.
    Set = 6,
    /// The route is known; the URI may still change.
    Rewrite = 7,
    /// Let in or answer.
    Access = 8,
    /// The last chance to answer before the content handler.
    Precontent = 9,
    /// The one handler that makes the answer.
    Content = 10,
    /// Before each try of an upstream peer.
    Balancer = 11,
    /// The answer's head, before it is sent.
    HeaderFilter = 12,
    /// Each chunk of the answer's body.
    BodyFilter = 13,
    /// After the answer has left.
    Log = 14,
    /// A timer of the plugin has fired.
    Timer = 15,
}

impl Phase {
    /// How many phases there are.
    pub const COUNT: usize = 16;

    /// All phases, in the order of their numbers.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Init,
        Self::InitWorker,
        Self::ExitWorker,
        Self::ClientHello,
        Self::Certificate,
        Self::ServerRewrite,
        Self::Set,
        Self::Rewrite,
        Self::Access,
        Self::Precontent,
        Self::Content,
        Self::Balancer,
        Self::HeaderFilter,
        Self::BodyFilter,
        Self::Log,
        Self::Timer,
    ];

    /// The number in the reactor protocol.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The phase of a number of the reactor protocol.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// The name in the configuration, in logs and in JSON: `header_filter`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Init => "init",
            Self::InitWorker => "init_worker",
            Self::ExitWorker => "exit_worker",
            Self::ClientHello => "client_hello",
            Self::Certificate => "certificate",
            Self::ServerRewrite => "server_rewrite",
            Self::Set => "set",
            Self::Rewrite => "rewrite",
            Self::Access => "access",
            Self::Precontent => "precontent",
            Self::Content => "content",
            Self::Balancer => "balancer",
            Self::HeaderFilter => "header_filter",
            Self::BodyFilter => "body_filter",
            Self::Log => "log",
            Self::Timer => "timer",
        }
    }

    /// The name of its WIT interface: `header-filter`.
    #[must_use]
    pub const fn interface(self) -> &'static str {
        match self {
            Self::InitWorker => "init-worker",
            Self::ExitWorker => "exit-worker",
            Self::ClientHello => "client-hello",
            Self::ServerRewrite => "server-rewrite",
            Self::HeaderFilter => "header-filter",
            Self::BodyFilter => "body-filter",
            Self::Init
            | Self::Certificate
            | Self::Set
            | Self::Rewrite
            | Self::Access
            | Self::Precontent
            | Self::Content
            | Self::Balancer
            | Self::Log
            | Self::Timer => self.name(),
        }
    }

    /// The phase of a name as it stands in the configuration.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|phase| phase.name() == name)
    }

    /// The phase of a WIT interface's name, without package and version.
    #[must_use]
    pub fn from_interface(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|phase| phase.interface() == name)
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// A set of phases, for example those that a component exports.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct PhaseSet(u16);

impl PhaseSet {
    /// No phase.
    pub const EMPTY: Self = Self(0);
    /// Every phase.
    pub const ALL: Self = Self(u16::MAX);

    /// The set of the phases given.
    #[must_use]
    pub const fn of(phases: &[Phase]) -> Self {
        let mut set = Self::EMPTY;
        let mut at = 0;
        while at < phases.len() {
            set = set.with(phases[at]);
            at += 1;
        }
        set
    }

    /// This set and one phase more.
    #[must_use]
    pub const fn with(self, phase: Phase) -> Self {
        Self(self.0 | (1 << phase as u8))
    }

    /// Adds a phase.
    pub const fn insert(&mut self, phase: Phase) {
        self.0 |= 1 << phase as u8;
    }

    /// Whether the phase is in the set.
    #[must_use]
    pub const fn contains(self, phase: Phase) -> bool {
        self.0 & (1 << phase as u8) != 0
    }

    /// Whether no phase is in the set.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// How many phases are in the set.
    #[must_use]
    pub const fn len(self) -> u32 {
        self.0.count_ones()
    }

    /// What is in either set.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What is in both sets.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// What is in this set and not in the other.
    #[must_use]
    pub const fn difference(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The phases of the set, in the order of their numbers.
    pub fn iter(self) -> impl Iterator<Item = Phase> {
        Phase::ALL
            .into_iter()
            .filter(move |phase| self.contains(*phase))
    }
}

impl FromIterator<Phase> for PhaseSet {
    fn from_iter<I: IntoIterator<Item = Phase>>(phases: I) -> Self {
        phases.into_iter().fold(Self::EMPTY, Self::with)
    }
}

impl fmt::Display for PhaseSet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, phase) in self.iter().enumerate() {
            if at > 0 {
                formatter.write_str(" ")?;
            }
            formatter.write_str(phase.name())?;
        }
        Ok(())
    }
}

impl fmt::Debug for PhaseSet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.iter()).finish()
    }
}

/// What a handler answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The following handler.
    Next,
    /// No more handlers in this phase.
    Done,
    /// The answer is made, on to the filters. 0 keeps the answer that the handler has sent; any
    /// other status makes that answer.
    Exit(u16),
}

#[cfg(test)]
mod tests {
    use super::{Phase, PhaseSet};

    #[test]
    fn numbers_and_names_lead_back_to_the_phase() {
        for (number, phase) in Phase::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(phase.number()), number);
            assert_eq!(Phase::from_number(phase.number()), Some(phase));
            assert_eq!(Phase::from_name(phase.name()), Some(phase));
            assert_eq!(Phase::from_interface(phase.interface()), Some(phase));
            assert_eq!(phase.interface().replace('-', "_"), phase.name());
        }
        assert_eq!(Phase::from_number(16), None);
        assert_eq!(Phase::from_name("header-filter"), None);
    }

    #[test]
    fn a_set_holds_what_was_put_in() {
        let set = PhaseSet::of(&[Phase::Log, Phase::Access]);
        assert!(set.contains(Phase::Access) && !set.contains(Phase::Content));
        assert_eq!(set.len(), 2);
        assert_eq!(set.to_string(), "access log");
        assert_eq!(
            set.difference(PhaseSet::of(&[Phase::Log])),
            [Phase::Access].into_iter().collect()
        );
        assert_eq!(PhaseSet::ALL.len(), 16);
        assert!(PhaseSet::EMPTY.is_empty());
        assert_eq!(PhaseSet::EMPTY.union(set).intersection(set), set);
    }
}
