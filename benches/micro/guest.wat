;; A plugin that does as little as the contract allows: what is left of a call is the host's own cost.
(component
  (import "phasor:plugin/time@0.1.0" (instance $time
    (export "now" (func (result u64)))))
  (core func $now (canon lower (func $time "now")))

  (core module $code
    (import "host" "now" (func $now (result i64)))
    (memory (export "memory") 1)
    ;; Results lie at 16: zero bytes are `ok(next)` and `ok`.
    (func (export "empty") (result i32)
      i32.const 16)
    (func (export "calls") (result i32)
      (local $left i32)
      (local.set $left (i32.const 1000))
      (loop $again
        (drop (call $now))
        (local.set $left (i32.sub (local.get $left) (i32.const 1)))
        (br_if $again (local.get $left)))
      i32.const 16))
  (core instance $host (export "now" (func $now)))
  (core instance $main (instantiate $code (with "host" (instance $host))))
  (alias core export $main "memory" (core memory $memory))

  (type $verdict (variant (case "next") (case "done") (case "exit" u16)))
  (func $empty (result (result $verdict (error string)))
    (canon lift (core func $main "empty") (memory $memory)))
  (func $calls (result (result $verdict (error string)))
    (canon lift (core func $main "calls") (memory $memory)))

  ;; An interface exports the types of its functions, too.
  (component $interface
    (type $shape (variant (case "next") (case "done") (case "exit" u16)))
    (import "verdict" (type $verdict (eq $shape)))
    (import "handle" (func $handle (result (result $verdict (error string)))))
    (export $exported "verdict" (type $verdict))
    (export "handle" (func $handle) (func (result (result $exported (error string))))))
  (instance $access (instantiate $interface
    (with "verdict" (type $verdict)) (with "handle" (func $empty))))
  (instance $rewrite (instantiate $interface
    (with "verdict" (type $verdict)) (with "handle" (func $calls))))
  (export "phasor:plugin/access@0.1.0" (instance $access))
  (export "phasor:plugin/rewrite@0.1.0" (instance $rewrite)))
