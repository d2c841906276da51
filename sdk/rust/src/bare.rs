//! What a plugin without `std` needs in its place: an allocator, and what a panic does.
//!
//! `std` brings its way to end a program with a message, and with it imports of WASI that the
//! plugin never calls; a component without them is smaller and quicker to instantiate.

/// Makes a plugin without `std` complete. At the top of the crate stands
/// `#![cfg_attr(target_arch = "wasm32", no_std)]`, then `phasor_plugin::bare!();`. A panic writes
/// its message to the error log and traps. The SDK must be taken with `default-features = false`, and no
/// other crate of the build may ask for its feature `config`, which brings `std` back.
#[macro_export]
macro_rules! bare {
    () => {
        #[cfg(target_arch = "wasm32")]
        #[global_allocator]
        static ALLOCATOR: $crate::bare::Allocator = $crate::bare::ALLOCATOR;

        #[cfg(target_arch = "wasm32")]
        #[panic_handler]
        fn panic(info: &::core::panic::PanicInfo<'_>) -> ! {
            $crate::bare::give_up(info)
        }
    };
}

#[cfg(target_arch = "wasm32")]
pub use dlmalloc::GlobalDlmalloc as Allocator;

/// The one value of the allocator's type.
#[cfg(target_arch = "wasm32")]
pub const ALLOCATOR: Allocator = Allocator;

/// Logs the panic, and traps.
#[cfg(target_arch = "wasm32")]
pub fn give_up(info: &core::panic::PanicInfo<'_>) -> ! {
    crate::error!("{info}");
    core::arch::wasm32::unreachable()
}
