//! What a phase does not have, its handler cannot ask for: the compiler says which phase and which
//! type, on the line that the author wrote. `TRYBUILD=overwrite` writes the expected messages anew.

#[test]
fn a_handler_gets_only_what_its_phase_has() {
    trybuild::TestCases::new().compile_fail("tests/compile_fail/*.rs");
}
