//! Every bound of the program, with its unit in its name.
//!
//! Read by every area, written by nobody at run time. A relation between two bounds is a const
//! assert at the end of this file, so that a change of one which breaks the other does not compile.

// ---------- vault and configuration ----------

// ---------- plane ----------

// ---------- admin ----------

// ---------- onion ----------
