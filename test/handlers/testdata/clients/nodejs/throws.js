throw new RangeError("no");
