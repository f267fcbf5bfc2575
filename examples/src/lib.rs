//! Small programs, one for each idea.
