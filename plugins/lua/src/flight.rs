//! Flights of caches that Lua code has: each belongs to the task that got it, and when that ends
//! without ending the flight (an error, `ngx.exit`, a client that left), the next in line gets it.
#![expect(unsafe_code, reason = "reaches tasks by their pointers")]

use crate::bindings::phasor::plugin::cache::Flight;
use crate::vm::vm;

/// By number.
#[derive(Default)]
pub(crate) struct Flights {
    slots: Vec<Option<(u32, Flight)>>,
    free: Vec<usize>,
}

/// Keeps a flight for the running task; gives its number.
pub(crate) fn board(flight: Flight) -> usize {
    let vm = vm();
    let task = vm.task;
    if let Some(current) = vm.current() {
        current.flights += 1;
    }
    let flights = &mut vm.flights;
    let at = flights.free.pop().unwrap_or(flights.slots.len());
    if at == flights.slots.len() {
        flights.slots.push(None);
    }
    flights.slots[at] = Some((task, flight));
    at
}

/// The flight of this number.
pub(crate) fn flying(at: usize) -> Option<&'static Flight> {
    let (_, flight) = vm().flights.slots.get(at)?.as_ref()?;
    Some(flight)
}

/// Belongs to a flight that is on its way from one task to another.
const NOBODY: u32 = u32::MAX;

/// The flight's task has it no more, and may end; another one is to [take it over](take_over).
pub(crate) fn hand_over(at: usize) {
    let vm = vm();
    let Some(Some((task, _))) = vm.flights.slots.get_mut(at) else {
        return;
    };
    let before = std::mem::replace(task, NOBODY);
    if let Some(&task) = vm.tasks.get(before as usize) {
        // SAFETY: tasks are boxed and never freed.
        let task = unsafe { &mut *task };
        task.flights = task.flights.saturating_sub(1);
    }
}

/// The running task has a flight that was handed over.
pub(crate) fn take_over(at: usize) {
    let vm = vm();
    let own = vm.task;
    let Some(Some((task, _))) = vm.flights.slots.get_mut(at) else {
        return;
    };
    if *task == NOBODY {
        *task = own;
        if let Some(current) = vm.current() {
            current.flights += 1;
        }
    }
}

/// Takes a flight from whoever has it.
pub(crate) fn leave(at: usize) -> Option<Flight> {
    let vm = vm();
    let (task, flight) = vm.flights.slots.get_mut(at)?.take()?;
    vm.flights.free.push(at);
    if let Some(&task) = vm.tasks.get(task as usize) {
        // SAFETY: tasks are boxed and never freed.
        let task = unsafe { &mut *task };
        task.flights = task.flights.saturating_sub(1);
    }
    Some(flight)
}

/// The flights of a task that has ended, or is left behind, end with it.
pub(crate) fn leave_all(task: u32) {
    let slots = &mut vm().flights.slots;
    let mine = |slot: &Option<(u32, Flight)>| slot.as_ref().is_some_and(|(own, _)| *own == task);
    let left: Vec<usize> = (0..slots.len()).filter(|at| mine(&slots[*at])).collect();
    for at in left {
        drop(leave(at));
    }
}
