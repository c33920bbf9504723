"use strict";
(function () {
  const form = document.querySelector("form"), shown = document.getElementById("shown");
  const checks = Array.from(document.querySelectorAll("details[data-verdict]"));
  function apply() {
    const verdict = form.verdict.value, severity = form.severity.value, section = form.section.value;
    const words = form.words.value.toLowerCase();
    let count = 0;
    for (const check of checks) {
      const data = check.dataset;
      const fits = (!verdict || data.verdict === verdict) && (!severity || data.severity === severity) &&
        (!section || data.section === section) && (!words || check.textContent.toLowerCase().includes(words));
      check.hidden = !fits;
      if (fits) count += 1;
    }
    for (const part of document.querySelectorAll("[data-part]"))
      part.hidden = !part.querySelector("details:not([hidden])");
    shown.textContent = count + " of " + checks.length + " checks";
  }
  form.addEventListener("input", apply);
  form.addEventListener("submit", function (event) { event.preventDefault(); });
  addEventListener("beforeprint", function () { checks.forEach(function (c) { c.open = c.dataset.verdict === "fail"; }); });
  apply();
})();
