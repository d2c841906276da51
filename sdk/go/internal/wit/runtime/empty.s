// The compiler takes declarations without a body only in a package that has an assembly file.
