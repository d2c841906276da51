//! A circuit breaker, because a server that is away must cost a request nothing: after some failures
//! in a row commands fail at once, and one probe at a time finds out when the server is back.

use std::time::Duration;
use tokio::time::Instant;

/// Whether commands may go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Yes.
    Closed,
    /// No, until then.
    Open(Instant),
    /// One is on its way to find out.
    Probing,
}

/// Counts failures.
#[derive(Debug)]
pub(super) struct Breaker {
    state: State,
    in_a_row: u32,
    most: u32,
    pause: Duration,
}

impl Breaker {
    /// Opens after `most` failures in a row, for `pause`.
    pub(super) fn new(most: u32, pause: Duration) -> Self {
        Self {
            state: State::Closed,
            in_a_row: 0,
            most,
            pause,
        }
    }

    /// Whether a command may go out now. When the pause is over one may, as the probe.
    pub(super) fn admit(&mut self, now: Instant) -> bool {
        match self.state {
            State::Closed => true,
            State::Open(until) if until <= now => {
                self.state = State::Probing;
                true
            }
            State::Open(_) | State::Probing => false,
        }
    }

    /// The server answered. True when the breaker closes by that.
    pub(super) fn success(&mut self) -> bool {
        self.in_a_row = 0;
        std::mem::replace(&mut self.state, State::Closed) != State::Closed
    }

    /// The server did not answer. True when the breaker opens by that.
    pub(super) fn failure(&mut self, now: Instant) -> bool {
        self.in_a_row = self.in_a_row.saturating_add(1);
        match self.state {
            State::Closed if self.in_a_row < self.most => false,
            State::Closed => {
                self.state = State::Open(now + self.pause);
                true
            }
            State::Probing => {
                self.state = State::Open(now + self.pause);
                false
            }
            // Commands that went out before it opened.
            State::Open(_) => false,
        }
    }

    /// A command ended without saying anything of the server: who was the probe is none any more.
    pub(super) fn neither(&mut self, now: Instant) {
        if self.state == State::Probing {
            self.state = State::Open(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Breaker;
    use std::time::Duration;
    use tokio::time::Instant;

    const PAUSE: Duration = Duration::from_millis(500);

    #[test]
    fn opens_after_failures_in_a_row_and_lets_one_probe_through() {
        let start = Instant::now();
        let mut breaker = Breaker::new(3, PAUSE);
        assert!(!breaker.failure(start) && !breaker.failure(start));
        assert!(!breaker.success());
        assert!(!breaker.failure(start) && !breaker.failure(start));
        assert!(breaker.admit(start));
        assert!(breaker.failure(start), "the third in a row opens it");
        assert!(!breaker.admit(start));
        assert!(breaker.admit(start + PAUSE), "the probe");
        assert!(!breaker.admit(start + PAUSE), "and no second one");
        assert!(!breaker.failure(start + PAUSE));
        assert!(!breaker.admit(start + PAUSE));
        assert!(breaker.admit(start + PAUSE * 2));
        assert!(breaker.success(), "back");
        assert!(breaker.admit(start + PAUSE * 2));
    }

    #[test]
    fn a_probe_that_is_given_up_lets_the_next_one_through() {
        let start = Instant::now();
        let mut breaker = Breaker::new(1, PAUSE);
        breaker.failure(start);
        assert!(breaker.admit(start + PAUSE));
        breaker.neither(start + PAUSE);
        assert!(breaker.admit(start + PAUSE));
    }
}
