//! The end of an exchange whose answer has left while a language runtime runs its `log` handlers.
//! No task waits for them: where their outcome comes in, the exchange is closed.

use std::cell::RefCell;
use std::rc::Rc;

use super::ExchangeId;

/// What closes an exchange.
pub trait Close {
    /// The `log` handlers are through: [`super::Exchange::outcome`] or `abort` says how.
    fn close(self: Rc<Self>, id: ExchangeId, plugin: usize);
}

/// How an exchange is closed that nobody drives any more.
pub struct Closing {
    /// Its own number.
    pub id: ExchangeId,
    /// What closes it.
    pub by: Rc<dyn Close>,
    /// Whose handlers run.
    pub plugin: usize,
}

impl std::fmt::Debug for Closing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Closing({}, plugin {})", self.id, self.plugin)
    }
}

thread_local!(static ENDED: RefCell<Vec<ExchangeId>> = const { RefCell::new(Vec::new()) });

/// Something has come in for an exchange that is being closed.
pub(super) fn ended(id: ExchangeId) {
    ENDED.with_borrow_mut(|ended| ended.push(id));
}

/// Closes those whose outcome has come in. Whoever wakes exchanges calls this when the table is free.
pub fn close_ended() {
    while let Some(id) = ENDED.with_borrow_mut(Vec::pop) {
        if let Some(closing) = super::try_with(id, |x| x.closing.take()).flatten() {
            closing.by.close(id, closing.plugin);
        }
    }
}
