//! A component that serves no phase: the host must say so when it is configured.

use phasor_plugin as _;
