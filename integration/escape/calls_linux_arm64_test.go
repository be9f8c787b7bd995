package escape

// calls32 would be about the calls of 32-bit ARM, which not every processor has.
var calls32 []attempt
