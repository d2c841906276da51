//! Guards of locks that Lua code has: each belongs to the request in which it was got, or to the timer or
//! call where there is none, and when that ends the lock is given back.
#![expect(unsafe_code, reason = "reaches jobs and tasks by their pointers")]

use crate::bindings::phasor::plugin::lock::Guard;
use crate::vm::vm;

/// What a guard ends with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    Job(u32),
    Task(u32),
    /// Code outside of all: the instance's end.
    Nobody,
}

struct Slot {
    owner: Owner,
    /// Counts the slot's guards, so that who has a number of an old one finds nothing.
    uses: u32,
    guard: Option<Guard>,
}

/// By place.
#[derive(Default)]
pub(crate) struct Guards {
    slots: Vec<Slot>,
    free: Vec<usize>,
}

/// Where a guard is.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    at: usize,
    uses: u32,
}

impl Place {
    fn slot(self) -> Option<&'static mut Slot> {
        let slot = vm().guards.slots.get_mut(self.at)?;
        (slot.uses == self.uses).then_some(slot)
    }

    /// The guard, if it was not given back.
    pub(crate) fn guard(self) -> Option<&'static Guard> {
        self.slot()?.guard.as_ref()
    }

    /// Takes the guard out.
    pub(crate) fn take(self) -> Option<Guard> {
        let slot = self.slot()?;
        let guard = slot.guard.take()?;
        if let Some(count) = count(slot.owner) {
            *count = count.saturating_sub(1);
        }
        vm().guards.free.push(self.at);
        Some(guard)
    }
}

/// How many guards it has.
fn count(owner: Owner) -> Option<&'static mut u32> {
    let vm = vm();
    // SAFETY: jobs and tasks are boxed and never freed.
    unsafe {
        match owner {
            Owner::Job(number) => vm.jobs.get(number as usize).map(|job| &mut (**job).guards),
            Owner::Task(number) => {
                let task = vm.tasks.get(number as usize);
                task.map(|task| &mut (**task).guards)
            }
            Owner::Nobody => None,
        }
    }
}

/// Keeps a guard for the running request.
pub(crate) fn keep(guard: Guard) -> Place {
    let vm = vm();
    let owner = match vm.current_job() {
        Some(job) => Owner::Job(job.number),
        None => vm
            .current_root()
            .map_or(Owner::Nobody, |task| Owner::Task(task.number)),
    };
    if let Some(count) = count(owner) {
        *count += 1;
    }
    let guards = &mut vm.guards;
    let at = guards.free.pop().unwrap_or(guards.slots.len());
    if at == guards.slots.len() {
        guards.slots.push(Slot {
            owner,
            uses: 0,
            guard: None,
        });
    }
    let slot = &mut guards.slots[at];
    slot.owner = owner;
    slot.uses = slot.uses.wrapping_add(1);
    slot.guard = Some(guard);
    Place {
        at,
        uses: slot.uses,
    }
}

/// It has ended: its locks are given back.
pub(crate) fn give_back_all(owner: Owner) {
    let slots = vm().guards.slots.iter().enumerate();
    let places: Vec<Place> = slots
        .filter(|(_, slot)| slot.owner == owner && slot.guard.is_some())
        .map(|(at, slot)| Place {
            at,
            uses: slot.uses,
        })
        .collect();
    for place in places {
        drop(place.take());
    }
}
