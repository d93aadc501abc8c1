require("./module.mjs");
