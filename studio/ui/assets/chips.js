// A click on a word puts it into the prompt where the caret is.
element.addEventListener("click", (event) => {
  const word = event.target?.dataset?.word;
  const prompt = document.querySelector("#prompt textarea");
  if (!word || !prompt) return;
  const start = prompt.selectionStart, end = prompt.selectionEnd;
  const before = prompt.value.slice(0, start), after = prompt.value.slice(end);
  const glued = (before && !/\s$/.test(before) ? " " : "") + word + (after && !/^[\s,.]/.test(after) ? " " : "");
  prompt.value = before + glued + after;
  prompt.dispatchEvent(new Event("input", { bubbles: true }));
  prompt.setSelectionRange(start + glued.length, start + glued.length);
});
