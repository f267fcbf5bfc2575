//! DNS: a front with a directory in memory, asked by hickory, by dig and kdig, and with random bytes.

mod conformance;
mod connections;
mod encrypted;
mod fixture;
mod fuzz;
mod limits;
mod malformed;
mod recursion;
mod settings;
mod spread;
mod tools;
