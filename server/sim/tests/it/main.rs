//! The simulation itself: a seed is the same each time, and different seeds are not.

mod replay;
