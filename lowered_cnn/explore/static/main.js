document.getElementById("page").textContent = "lowered_cnn";
